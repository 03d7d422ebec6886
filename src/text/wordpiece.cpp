#include "text/wordpiece.h"

#include <algorithm>

namespace nibble::text {

void WordPiece::encode(const Piece& word, std::vector<TokenSpan>& out) const {
  const std::string_view text = word.text;
  const auto unknown = [&] {
    if (options_.unknown >= 0) append_token(out, options_.unknown, word, 0, text.size());
  };
  if (options_.whole_words) {
    const int32_t id = vocab_->find(text);
    return id < 0 ? unknown() : append_token(out, id, word, 0, text.size());
  }
  const auto starts_character = [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; };
  if (static_cast<size_t>(std::count_if(text.begin(), text.end(), starts_character)) >
      options_.max_characters)
    return unknown();
  const size_t first = out.size();
  std::string spelled;
  for (size_t begin = 0; begin < text.size();) {
    spelled.assign(begin > 0 ? options_.prefix : "");
    const size_t lead = spelled.size();
    spelled += text.substr(begin);
    int32_t id = -1;
    while (spelled.size() > lead && (id = vocab_->find(spelled)) < 0) {
      while (spelled.size() > lead && !starts_character(spelled.back())) spelled.pop_back();
      if (spelled.size() > lead) spelled.pop_back();
    }
    if (id < 0) {
      out.resize(first);
      return unknown();
    }
    append_token(out, id, word, begin, begin + spelled.size() - lead);
    begin += spelled.size() - lead;
  }
}

}  // namespace nibble::text
