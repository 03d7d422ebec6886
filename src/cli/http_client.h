// JSON over HTTP or HTTPS, for asking an OpenAI-compatible address.
#pragma once
#include <memory>
#include <string>

#include "base/json.h"

namespace nibble::cli {

struct HttpAnswer {
  int status = 0;    // 0: no answer at all
  std::string body;  // or what went wrong, when there was no answer
};

class HttpClient {
 public:
  // `url`: "http://host:port/v1". Errors: UsageError for what is no http or https address.
  HttpClient(const std::string& url, const std::string& key, double timeout_seconds);
  ~HttpClient();
  HttpAnswer post(const std::string& path, const Json& body);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nibble::cli
