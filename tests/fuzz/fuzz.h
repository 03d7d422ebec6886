// Fuzz targets: one file each, FUZZ_TARGET(name) { … bytes … }. Any bytes give a result or an Error, never a
// crash, another exception, a leak or an allocation far beyond the input. Two programs run them: fuzz
// (libFuzzer, clang) and test_fuzz, an ordinary test over the seeds in corpus/<name>/.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace nibble::fuzz {

// Calls f; a nibble::Error from it is an answer like any other.
template <class F>
void attempt(F&& f) {
  try {
    f();
  } catch (const Error&) {
  }
}

struct Target {
  const char* name;
  void (*body)(std::string_view bytes);

  void run(std::string_view bytes) const {
    attempt([&] { body(bytes); });
  }
};

// Every target that is linked in, by name.
std::vector<Target> targets();

struct Registration {
  Registration(const char* name, void (*body)(std::string_view));
};

// A file or directory of this process, in memory where there is /dev/shm; everything is removed at exit.
std::string scratch(const std::string& name);
std::string scratch_directory(const std::string& name);
void put(const std::string& path, std::string_view bytes);

}  // namespace nibble::fuzz

#define FUZZ_TARGET(name)                                                        \
  static void fuzz_##name(std::string_view bytes);                               \
  static const nibble::fuzz::Registration registered_##name(#name, fuzz_##name); \
  static void fuzz_##name(std::string_view bytes)
