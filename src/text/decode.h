// Decoders: pieces of the vocabulary back into text. Kinds and behaviour are those of tokenizer.json
// ("decoder") and of the sentencepiece library; bytes that are no UTF-8 come out as they are. Threading:
// const after construction.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "base/json_fwd.h"

namespace nibble::text {

class Decoder {
 public:
  virtual ~Decoder() = default;
  // Rewrites the list of spelled pieces; what is left is concatenated.
  virtual void apply(std::vector<std::string>& pieces) const = 0;
};

// From the "decoder" object of a tokenizer.json; null for a JSON null. Errors: Error{where} names the unknown
// type.
std::unique_ptr<Decoder> make_decoder(const Json& spec, const std::string& where);
// The decoder {"type": type} with its defaults.
std::unique_ptr<Decoder> make_decoder(const char* type, const std::string& where);

// The byte that "<0x0A>" stands for, or -1.
int fallback_byte(std::string_view piece);

}  // namespace nibble::text
