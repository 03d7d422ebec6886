// fuzz TARGET [libFuzzer's options] [corpus …]: libFuzzer on one of the targets. Without arguments: their
// names.
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "tests/fuzz/fuzz.h"

namespace {
nibble::fuzz::Target chosen;
}

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  const auto all = nibble::fuzz::targets();
  const auto target = std::find_if(all.begin(), all.end(), [&](const auto& t) {
    return *argc > 1 && std::string_view((*argv)[1]) == t.name;
  });
  if (target == all.end()) {
    for (const auto& known : all) std::puts(known.name);
    std::exit(*argc > 1 ? 2 : 0);
  }
  chosen = *target;
  std::rotate(*argv + 1, *argv + 2, *argv + *argc);
  --*argc;
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  chosen.run({reinterpret_cast<const char*>(data), size});
  return 0;
}
