// libFuzzer target: any bytes given to the GGUF reader, and to the tokenizer in it, give a result or an
// Error.
#include <cstdlib>

#include "base/error.h"
#include "base/gguf.h"
#include "tests/fuzz/temp_file.h"
#include "text/loaders.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string path = nibble::fuzz::temp_directory() + "/model.gguf";
  nibble::fuzz::put(path, data, size);
  try {
    const auto file = nibble::GgufFile::open(path);
    unsigned sum = 0;
    for (const auto& tensor : file.tensors)
      if (!tensor.data.empty()) sum += std::to_integer<unsigned>(tensor.data.back());
    if (sum == 0xFFFFFFFF) std::abort();
    const auto tokenizer = nibble::text::load_gguf_tokenizer(path);
    (void)tokenizer->decode(tokenizer->encode("The heron's 12 fish — 🦙 <s>\n\n  waits.\xFF"));
  } catch (const nibble::Error&) {
  }
  return 0;
}
