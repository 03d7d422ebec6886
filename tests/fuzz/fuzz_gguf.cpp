// libFuzzer target: any bytes given to the GGUF reader give a file or an Error.
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/error.h"
#include "base/gguf.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string path = "/tmp/nibble_fuzz_gguf_" + std::to_string(::getpid());
  if (std::FILE* f = std::fopen(path.c_str(), "wb")) {
    std::fwrite(data, 1, size, f);
    std::fclose(f);
  }
  try {
    const auto file = nibble::GgufFile::open(path);
    unsigned sum = 0;
    for (const auto& tensor : file.tensors)
      if (!tensor.data.empty()) sum += std::to_integer<unsigned>(tensor.data.back());
    if (sum == 0xFFFFFFFF) std::abort();
  } catch (const nibble::Error&) {
  }
  return 0;
}
