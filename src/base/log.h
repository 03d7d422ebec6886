// Messages for the person who runs the program: standard error only, so that standard output stays data.
#pragma once
#include <fmt/core.h>

#include <string_view>

namespace nibble {

enum class LogLevel { kQuiet, kWarning, kInfo, kDebug };
void set_log_level(LogLevel level);
LogLevel log_level();
void log_line(LogLevel level, std::string_view text);

template <class... A>
void log_info(fmt::format_string<A...> f, A&&... a) {
  if (log_level() >= LogLevel::kInfo) log_line(LogLevel::kInfo, fmt::format(f, std::forward<A>(a)...));
}
template <class... A>
void log_warning(fmt::format_string<A...> f, A&&... a) {
  if (log_level() >= LogLevel::kWarning) log_line(LogLevel::kWarning, fmt::format(f, std::forward<A>(a)...));
}
template <class... A>
void log_debug(fmt::format_string<A...> f, A&&... a) {
  if (log_level() >= LogLevel::kDebug) log_line(LogLevel::kDebug, fmt::format(f, std::forward<A>(a)...));
}

}  // namespace nibble
