#include "train/metrics.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/text.h"

namespace nibble::train {

MetricsFile::MetricsFile(std::string path, int64_t last_step) : path_(std::move(path)) {
  std::string kept;
  std::error_code none;
  if (last_step > 0 && std::filesystem::exists(path_, none)) {
    for (const std::string& line : split(read_file(path_), '\n')) {
      const Json json = Json::parse(line, nullptr, false);  // a line cut by a kill is no JSON
      if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer()) continue;
      const auto step = json["step"].get<int64_t>();
      if (step > last_step) continue;
      const auto number = [&](const char* key) { return json_get<double>(json, key, 0.0, path_); };
      if (json.contains("eval_loss"))
        evals_.push_back({step, number("epoch"), number("eval_loss")});
      else
        steps_.push_back({step, number("epoch"), number("loss"), number("learning_rate"), number("grad_norm"),
                          json_get<int64_t>(json, "tokens", 0, path_),
                          json_get<int64_t>(json, "trained_tokens", 0, path_), number("tokens_per_second"),
                          number("limit_share"), 0});
      kept += line + "\n";
    }
  }
  write_file_atomic(path_, kept);
  fd_ = ::open(path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC);
  require(fd_ >= 0, path_, "cannot write here: {}", std::strerror(errno));
}

MetricsFile::~MetricsFile() {
  if (fd_ >= 0) ::close(fd_);
}

void MetricsFile::write(const std::string& line) {
  ssize_t n = 0;
  do n = ::write(fd_, line.data(), line.size());
  while (n < 0 && errno == EINTR);
  require(n == static_cast<ssize_t>(line.size()), path_,
          "cannot write a line of metrics: {}; the checkpoints are untouched",
          n < 0 ? std::strerror(errno) : "no space left");
}

void MetricsFile::add(const StepMetrics& s) {
  const Json json = {{"step", s.step},
                     {"epoch", s.epoch},
                     {"loss", s.loss},
                     {"learning_rate", s.learning_rate},
                     {"grad_norm", s.grad_norm},
                     {"tokens", s.tokens},
                     {"trained_tokens", s.trained_tokens},
                     {"tokens_per_second", s.tokens_per_second},
                     {"limit_share", s.limit_share},
                     {"rss_bytes", s.rss_bytes}};
  write(json.dump() + "\n");
}

void MetricsFile::add(const EvalMetrics& e) {
  const Json json = {{"step", e.step}, {"epoch", e.epoch}, {"eval_loss", e.loss}};
  write(json.dump() + "\n");
}

}  // namespace nibble::train
