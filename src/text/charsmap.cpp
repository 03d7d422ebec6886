#include "text/charsmap.h"

#include <cstring>

#include "base/error.h"
#include "base/text.h"

namespace nibble::text {
namespace {

// Units of darts-clone (Yata 2008): a node's label with a leaf bit above it, its offset, a leaf's value.
bool has_leaf(uint32_t unit) { return ((unit >> 8) & 1) != 0; }
uint32_t value(uint32_t unit) { return unit & 0x7FFFFFFFu; }
uint32_t label(uint32_t unit) { return unit & ((1u << 31) | 0xFF); }
bool continues(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }
uint32_t offset(uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); }

}  // namespace

Charsmap::Charsmap(std::string_view blob, std::string_view where) {
  if (blob.empty()) return;
  uint32_t bytes = 0;
  require(blob.size() >= 4, where, "the precompiled character map is cut off");
  std::memcpy(&bytes, blob.data(), 4);
  require(bytes % 4 == 0 && bytes > 0 && bytes <= blob.size() - 4, where,
          "the precompiled character map claims a trie of {} bytes but has {}", bytes, blob.size() - 4);
  units_.resize(bytes / 4);
  std::memcpy(units_.data(), blob.data() + 4, bytes);
  replacements_ = blob.substr(4 + bytes);
  require(find_invalid_utf8(replacements_) == std::string_view::npos, where,
          "the precompiled character map holds invalid UTF-8");
}

size_t Charsmap::match(std::string_view text, bool longest, std::string_view& replacement) const {
  if (units_.empty()) return 0;
  size_t best = 0, node = offset(units_[0]);
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    node ^= byte;
    if (node >= units_.size() || label(units_[node]) != byte) break;
    const uint32_t unit = units_[node];
    node ^= offset(unit);
    if (!has_leaf(unit)) continue;
    if (node >= units_.size()) break;
    const size_t at = value(units_[node]);
    // A replacement or key that begins or ends inside a character would not be text.
    if (at >= replacements_.size() || continues(replacements_[at])) continue;
    if (i + 1 < text.size() && continues(text[i + 1])) continue;
    replacement = std::string_view(replacements_).substr(at, replacements_.find('\0', at) - at);
    best = i + 1;
    if (!longest) break;
  }
  return best;
}

}  // namespace nibble::text
