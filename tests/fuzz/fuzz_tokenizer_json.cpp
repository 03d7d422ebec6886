// libFuzzer target: any bytes as a tokenizer.json, a SentencePiece model or a text give a tokenizer, ids or
// an Error.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/error.h"
#include "text/loaders.h"

namespace {

constexpr std::string_view kText = "The heron's 12 fish — e\xCC\x81 🦙 <s>\n\n  waits.\xFF";

void use(const nibble::text::Tokenizer& tokenizer, std::string_view text) {
  size_t done = 0;
  const auto spans = tokenizer.encode_spans(text);
  for (const auto& span : spans) {
    if (span.begin < done || span.end < span.begin || span.end > text.size()) std::abort();
    done = span.end;
  }
  const auto ids = tokenizer.encode(text);
  (void)tokenizer.decode(ids);
  nibble::text::StreamDecoder stream(tokenizer);
  for (const int32_t id : ids) (void)stream.push(id);
  (void)stream.finish();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  try {
    const bool json = !bytes.empty() && bytes[0] == '{';
    const auto tokenizer = json ? nibble::text::parse_tokenizer_json(bytes, {}, "fuzz")
                                : nibble::text::parse_sentencepiece(bytes, {}, "fuzz");
    use(*tokenizer, kText);
    use(*tokenizer, bytes.substr(0, 500));
  } catch (const nibble::Error&) {
  }
  return 0;
}
