// What the tokenizer targets do with a tokenizer that was made from hostile bytes.
#pragma once
#include <cstdlib>
#include <string_view>

#include "text/tokenizer.h"

namespace nibble::fuzz {

inline constexpr std::string_view kText = "The heron's 12 fish — e\xCC\x81 🦙 <s>\n\n  waits.\xFF";

// Spans lie in the text and in order; ids and streams decode.
inline void use(const text::Tokenizer& tokenizer, std::string_view text) {
  size_t done = 0;
  for (const auto& span : tokenizer.encode_spans(text)) {
    if (span.begin < done || span.end < span.begin || span.end > text.size()) std::abort();
    done = span.end;
  }
  const auto ids = tokenizer.encode(text);
  (void)tokenizer.decode(ids);
  text::StreamDecoder stream(tokenizer);
  for (const int32_t id : ids) (void)stream.push(id);
  (void)stream.finish();
}

}  // namespace nibble::fuzz
