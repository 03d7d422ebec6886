// Text under way through a tokenizer, with the place in the input that each of its bytes comes from.
// As long as nothing was rewritten a Piece is a view of the input and an offset; a rewritten one has a table.
#pragma once
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::text {

struct Range {
  uint32_t begin, end;
};

struct Piece {
  std::string_view text;
  const Range* map = nullptr;  // one per byte of text, or null: byte i comes from byte base + i
  uint32_t base = 0;           // for an empty piece and for map == null: where it starts in the input

  // The input bytes that [begin, end) of the text comes from.
  Range origin(size_t begin, size_t end) const {
    if (map == nullptr || text.empty())
      return {base + static_cast<uint32_t>(begin), base + static_cast<uint32_t>(end)};
    if (begin == end) {
      const uint32_t at = begin < text.size() ? map[begin].begin : map[text.size() - 1].end;
      return {at, at};
    }
    return {map[begin].begin, map[end - 1].end};
  }
  Piece part(size_t begin, size_t end) const {
    return {text.substr(begin, end - begin), map == nullptr ? nullptr : map + begin,
            map == nullptr ? base + static_cast<uint32_t>(begin) : origin(begin, begin).begin};
  }
};

// Owns rewritten text until the call that made it is over.
class Arena {
 public:
  struct Text {
    std::string bytes;
    std::vector<Range> map;
  };
  Text& add() { return texts_.emplace_back(); }

 private:
  std::deque<Text> texts_;
};

// Builds a rewritten piece from left to right.
class Rewriter {
 public:
  Rewriter(Arena& arena, const Piece& from) : out_(arena.add()), from_(from) {
    out_.bytes.reserve(from.text.size() + 8);
    out_.map.reserve(from.text.size() + 8);
  }
  // Bytes [begin, end) as they are.
  void keep(size_t begin, size_t end) {
    out_.bytes.append(from_.text.substr(begin, end - begin));
    for (size_t i = begin; i < end; ++i) out_.map.push_back(from_.origin(i, i + 1));
  }
  // Other bytes in their place (begin == end: an insertion).
  void put(std::string_view bytes, size_t begin, size_t end) {
    out_.bytes.append(bytes);
    out_.map.insert(out_.map.end(), bytes.size(), from_.origin(begin, end));
  }
  std::string_view text() const { return out_.bytes; }
  void cut(size_t size) {
    out_.bytes.resize(size);
    out_.map.resize(size);
  }
  Piece done() const { return {out_.bytes, out_.map.data(), from_.origin(0, 0).begin}; }

 private:
  Arena::Text& out_;
  const Piece& from_;
};

// Length in bytes of the character at text[at]; the text is valid UTF-8.
inline size_t char_length(std::string_view text, size_t at) {
  const auto b = static_cast<unsigned char>(text[at]);
  return b < 0x80 ? 1 : b < 0xE0 ? 2 : b < 0xF0 ? 3 : 4;
}
inline char32_t char_at(std::string_view text, size_t at, size_t& length) {
  length = char_length(text, at);
  const auto byte = [&](size_t i) { return static_cast<char32_t>(static_cast<unsigned char>(text[at + i])); };
  switch (length) {
    case 1:
      return byte(0);
    case 2:
      return ((byte(0) & 0x1F) << 6) | (byte(1) & 0x3F);
    case 3:
      return ((byte(0) & 0x0F) << 12) | ((byte(1) & 0x3F) << 6) | (byte(2) & 0x3F);
    default:
      return ((byte(0) & 0x07) << 18) | ((byte(1) & 0x3F) << 12) | ((byte(2) & 0x3F) << 6) | (byte(3) & 0x3F);
  }
}

}  // namespace nibble::text
