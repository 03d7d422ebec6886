#include "cli/http_client.h"

#include <httplib.h>

#include "base/error.h"

namespace nibble::cli {

struct HttpClient::Impl {
  httplib::Client client;
  std::string base;  // path in front of every request's: "/v1"
};

HttpClient::HttpClient(const std::string& url, const std::string& key, double timeout_seconds) {
  const size_t scheme = url.find("://");
  const bool known = url.starts_with("http://") || url.starts_with("https://");
  const size_t slash = known ? url.find('/', scheme + 3) : std::string::npos;
  const std::string host = url.substr(0, slash);
  if (!known || host.size() <= scheme + 3)
    throw UsageError("url", fmt::format("\"{}\" is no address; expected http://host:port/v1", url));
  impl_ = std::make_unique<Impl>(
      Impl{httplib::Client(host), slash == std::string::npos ? "" : url.substr(slash)});
  while (impl_->base.ends_with('/')) impl_->base.pop_back();
  const auto seconds = static_cast<time_t>(timeout_seconds);
  impl_->client.set_connection_timeout(std::min<time_t>(seconds, 30));
  impl_->client.set_read_timeout(seconds);
  impl_->client.set_write_timeout(seconds);
  impl_->client.set_keep_alive(true);
  if (!key.empty()) impl_->client.set_bearer_token_auth(key);
}

HttpClient::~HttpClient() = default;

HttpAnswer HttpClient::post(const std::string& path, const Json& body) {
  const auto result = impl_->client.Post(
      impl_->base + path, body.dump(-1, ' ', false, Json::error_handler_t::replace), "application/json");
  if (!result) return {0, httplib::to_string(result.error())};
  return {result->status, result->body};
}

}  // namespace nibble::cli
