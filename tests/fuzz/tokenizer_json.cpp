// tokenizer.json.
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/use_tokenizer.h"
#include "text/loaders.h"

FUZZ_TARGET(tokenizer_json) {
  const auto tokenizer = nibble::text::parse_tokenizer_json(bytes, {}, "fuzz");
  nibble::fuzz::use(*tokenizer, nibble::fuzz::kText);
  nibble::fuzz::use(*tokenizer, bytes.substr(0, 500));
}
