// tokenizer.model of Llama 3: a line of base64 and a rank per token.
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/use_tokenizer.h"
#include "text/loaders.h"

FUZZ_TARGET(tiktoken) {
  static const std::string path = nibble::fuzz::scratch("tiktoken.model");
  nibble::fuzz::put(path, bytes);
  nibble::fuzz::use(*nibble::text::load_tiktoken(path, {}), nibble::fuzz::kText);
}
