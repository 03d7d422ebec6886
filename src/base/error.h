// Errors at operation and I/O borders: what was expected, what came, what to try next.
//
// Use `require` for a condition on input and `fail` where there is none to test. `where` is the op, command
// or file
// ("rms_norm", "model.safetensors"); it is printed in brackets before the message. Inside kernels use
// assert().
#pragma once
#include <fmt/core.h>

#include <stdexcept>
#include <string>
#include <string_view>

namespace nibble {

class Error : public std::runtime_error {
 public:
  Error(std::string_view where, std::string_view message)
      : std::runtime_error(fmt::format("[{}] {}", where, message)), where_(where) {}
  const std::string& where() const { return where_; }

 private:
  std::string where_;
};

// A command line or recipe that cannot be understood: the program exits with 2 instead of 1.
class UsageError : public Error {
 public:
  using Error::Error;
};

// Ctrl-C or SIGTERM, after everything worth keeping was saved: the program exits with 130.
class Interrupted : public Error {
 public:
  using Error::Error;
};

template <class... Args>
[[noreturn]] void fail(std::string_view where, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(where, fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
void require(bool ok, std::string_view where, fmt::format_string<Args...> format, Args&&... args) {
  if (!ok) [[unlikely]]
    throw Error(where, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace nibble
