// The GGUF container, and the tokenizer in it.
#include "base/gguf.h"

#include <cstdlib>

#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/use_tokenizer.h"
#include "text/export.h"
#include "text/loaders.h"

FUZZ_TARGET(gguf) {
  static const std::string path = nibble::fuzz::scratch("container.gguf");
  nibble::fuzz::put(path, bytes);
  const auto file = nibble::GgufFile::open(path);
  unsigned sum = 0;
  for (const auto& tensor : file.tensors)
    if (!tensor.data.empty()) sum += std::to_integer<unsigned>(tensor.data.back());
  if (sum == 0xFFFFFFFF) std::abort();
  nibble::fuzz::use(*nibble::text::load_gguf_tokenizer(path), nibble::fuzz::kText);
  (void)nibble::text::export_tokenizer(path, "");
}
