// Tokens that are found in the text before (or after) normalization and never go through the model: special
// tokens and whatever was added to a vocabulary. Of matches at one place the longest wins.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "text/aligned.h"
#include "text/normalize.h"
#include "text/tokenizer.h"
#include "text/trie.h"

namespace nibble::text {

struct AddedToken {
  int32_t id = -1;
  std::string content;
  bool special = false;
  bool single_word = false;  // only where no letter or digit touches it
  bool lstrip = false;       // swallows white space to its left
  bool rstrip = false;       // … and right
  bool normalized = false;   // looked for after normalization, its own text normalized as well
};

class AddedTokens {
 public:
  AddedTokens() = default;
  // Takes those of the tokens whose `normalized` equals the argument. `normalizer` may be null.
  AddedTokens(const std::vector<AddedToken>& tokens, bool normalized, const Normalizer* normalizer);

  // Calls give(part, token) left to right; token is null for text between them. Special tokens are text like
  // any other where the options say so.
  template <class Give>
  void split(const Piece& piece, const EncodeOptions& options, Give&& give) const {
    const std::string_view text = piece.text;
    size_t done = 0;
    if (!trie_.empty()) {
      for (size_t at = 0; at < text.size();) {
        int32_t which = -1;
        const size_t length = trie_.may_start(text[at]) ? trie_.longest(text.substr(at), which) : 0;
        if (length == 0) {
          ++at;
          continue;
        }
        size_t begin = at, end = at + length;
        const AddedToken& token = tokens_[static_cast<size_t>(which)];
        if (token.special && touches(options.literal, piece.origin(begin, end))) {
          ++at;  // what begins inside it may still be the template's
          continue;
        }
        at = end;
        if (begin < done || (token.special && !options.parse_special) ||
            !widen(token, text, done, begin, end))
          continue;
        if (done < begin) give(piece.part(done, begin), nullptr);
        give(piece.part(begin, end), &token);
        done = end;
      }
    }
    if (done < text.size()) give(piece.part(done, text.size()), nullptr);
  }

 private:
  static bool touches(std::span<const ByteRange> ranges, Range place);
  static bool widen(const AddedToken& token, std::string_view text, size_t done, size_t& begin, size_t& end);

  std::vector<AddedToken> tokens_;
  Trie trie_;
};

}  // namespace nibble::text
