// A tokenizer's model: one word into ids. Threading: const after construction.
#pragma once
#include <cstdint>
#include <vector>

#include "text/aligned.h"
#include "text/tokenizer.h"

namespace nibble::text {

class Model {
 public:
  virtual ~Model() = default;
  // Appends the word's tokens with the input bytes they come from. The word is valid UTF-8 and not empty.
  virtual void encode(const Piece& word, std::vector<TokenSpan>& out) const = 0;
};

inline void append_token(std::vector<TokenSpan>& out, int32_t id, const Piece& word, size_t begin,
                         size_t end) {
  const Range range = word.origin(begin, end);
  out.push_back({id, range.begin, range.end});
}

}  // namespace nibble::text
