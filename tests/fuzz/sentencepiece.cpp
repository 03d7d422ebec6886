// tokenizer.model: SentencePiece's protocol buffer.
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/use_tokenizer.h"
#include "text/loaders.h"

FUZZ_TARGET(sentencepiece) {
  const auto tokenizer = nibble::text::parse_sentencepiece(bytes, {}, "fuzz");
  nibble::fuzz::use(*tokenizer, nibble::fuzz::kText);
  nibble::fuzz::use(*tokenizer, bytes.substr(0, 500));
}
