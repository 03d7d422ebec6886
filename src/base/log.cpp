#include "base/log.h"

#include <atomic>
#include <cstdio>
#include <string>

namespace nibble {
namespace {
std::atomic<LogLevel> g_level{LogLevel::kInfo};
}

void set_log_level(LogLevel level) { g_level = level; }
LogLevel log_level() { return g_level; }

void log_line(LogLevel level, std::string_view text) {
  std::string line = level == LogLevel::kWarning ? "warning: " : "";
  line.append(text);
  line += '\n';
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace nibble
