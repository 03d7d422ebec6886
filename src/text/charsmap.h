// SentencePiece's precompiled character map: a double-array trie from byte strings to their replacements
// (NFKC and the like), as ModelProto.normalizer_spec.precompiled_charsmap holds it. Untrusted: every step is
// bounded.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::text {

class Charsmap {
 public:
  Charsmap() = default;
  // Layout: u32 bytes of the trie, the trie's u32 units (darts-clone), NUL-terminated replacements.
  // Errors: Error{where}.
  Charsmap(std::string_view blob, std::string_view where);

  bool empty() const { return units_.empty(); }
  // The longest (or, as the `tokenizers` package does it, shortest) key that `text` starts with: its length,
  // or 0.
  size_t match(std::string_view text, bool longest, std::string_view& replacement) const;

 private:
  std::vector<uint32_t> units_;
  std::string replacements_;
};

}  // namespace nibble::text
