// tokenizer.bin of llama2.c.
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/use_tokenizer.h"
#include "text/loaders.h"

FUZZ_TARGET(tokenizer_bin) {
  static const std::string path = nibble::fuzz::scratch("tokenizer.bin");
  nibble::fuzz::put(path, bytes);
  nibble::fuzz::use(*nibble::text::load_llama2c(path), nibble::fuzz::kText);
}
