#include "train/display.h"

#include <cmath>
#include <cstdio>
#include <vector>

#include "base/error.h"
#include "base/process.h"
#include "base/text.h"

namespace nibble::train {

std::string status_line(const StepMetrics& m, int64_t total_steps, double seconds_left, int columns) {
  // In order of importance; what does not fit is left out from the end.
  std::vector<std::string> fields = {fmt::format("step {}/{}", m.step, total_steps),
                                     fmt::format("loss {:.4f}", m.loss)};
  fields.push_back(fmt::format("lr {:.2e}", m.learning_rate));
  fields.push_back(fmt::format("norm {:.3f}", m.grad_norm));
  fields.push_back(fmt::format("{} tok/s", show_count(std::llround(m.tokens_per_second))));
  if (m.limit_share > 0) fields.push_back(fmt::format("{:.0f}% of limit", m.limit_share * 100));
  fields.push_back(show_bytes(static_cast<double>(m.rss_bytes)));
  if (m.step < total_steps) fields.push_back(show_seconds(seconds_left) + " left");
  std::string line;
  for (const std::string& field : fields) {
    const size_t length = line.size() + (line.empty() ? 0 : 2) + field.size();
    if (columns > 0 && length >= static_cast<size_t>(columns)) break;
    line += (line.empty() ? "" : "  ") + field;
  }
  return line;
}

Display::Display(bool quiet, bool terminal) : quiet_(quiet), terminal_(terminal) {}

void Display::text(const std::string& lines) {
  if (quiet_ || lines.empty()) return;
  finish_line();
  std::fputs(lines.c_str(), stderr);
  if (lines.back() != '\n') std::fputc('\n', stderr);
  std::fflush(stderr);
}

void Display::step(const StepMetrics& metrics, int64_t total_steps, double seconds_left, bool logged) {
  if (quiet_) return;
  if (terminal_) {
    std::fprintf(stderr, "\r\033[K%s",
                 status_line(metrics, total_steps, seconds_left, terminal_width()).c_str());
    live_ = true;
  } else if (logged) {
    std::fprintf(stderr, "%s\n", status_line(metrics, total_steps, seconds_left, 0).c_str());
  }
  std::fflush(stderr);
}

void Display::finish_line() {
  if (live_) std::fputc('\n', stderr);
  live_ = false;
}

}  // namespace nibble::train
