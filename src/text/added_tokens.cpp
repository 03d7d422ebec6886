#include "text/added_tokens.h"

#include <algorithm>

#include "base/text.h"
#include "text/unicode_class.h"

namespace nibble::text {
namespace {

size_t character_before(std::string_view text, size_t at, char32_t& c) {
  size_t begin = at - 1, length = 0;
  while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  c = char_at(text, begin, length);
  return begin;
}

}  // namespace

AddedTokens::AddedTokens(const std::vector<AddedToken>& tokens, bool normalized,
                         const Normalizer* normalizer) {
  for (const AddedToken& token : tokens) {
    if (token.normalized != normalized || token.content.empty()) continue;
    if (find_invalid_utf8(token.content) != std::string_view::npos) continue;
    Arena arena;
    Piece content{token.content};
    if (normalized && normalizer != nullptr) content = normalizer->apply(arena, content);
    trie_.insert(content.text, static_cast<int32_t>(tokens_.size()));
    tokens_.push_back(token);
  }
}

bool AddedTokens::touches(std::span<const ByteRange> ranges, Range place) {
  const auto next = std::partition_point(ranges.begin(), ranges.end(),
                                         [&](const ByteRange& r) { return r.end <= place.begin; });
  return next != ranges.end() && next->begin < place.end;
}

bool AddedTokens::widen(const AddedToken& token, std::string_view text, size_t done, size_t& begin,
                        size_t& end) {
  char32_t c = 0;
  size_t length = 0;
  if (token.single_word) {
    if (begin > 0 && (character_before(text, begin, c), is_word(c))) return false;
    if (end < text.size() && is_word(char_at(text, end, length))) return false;
  }
  if (token.lstrip) {
    while (begin > done) {
      const size_t at = character_before(text, begin, c);
      if (!is_white_space(c)) break;
      begin = std::max(at, done);
    }
  }
  if (token.rstrip)
    while (end < text.size() && is_white_space(char_at(text, end, length))) end += length;
  return true;
}

}  // namespace nibble::text
