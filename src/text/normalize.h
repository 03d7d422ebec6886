// Normalizers: what a tokenizer does to text before it looks for pieces. Each keeps track of where its bytes
// come from. Kinds and behaviour are those of tokenizer.json ("normalizer") and of SentencePiece's
// NormalizerSpec. Threading: const after construction.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "base/json_fwd.h"
#include "text/aligned.h"
#include "text/charsmap.h"
#include "text/trie.h"

namespace nibble::text {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  // The piece itself when nothing changes; otherwise a rewritten one in the arena.
  virtual Piece apply(Arena& arena, const Piece& piece) const = 0;
};

// From the "normalizer" object of a tokenizer.json; null for a JSON null. Errors: Error{where} names the
// unknown type.
std::unique_ptr<Normalizer> make_normalizer(const Json& spec, const std::string& where);

enum class UnicodeForm { kNFC, kNFD, kNFKC, kNFKD };
Piece to_unicode_form(UnicodeForm form, Arena& arena, const Piece& piece);

// SentencePiece's own normalization. Symbols in `verbatim` (user-defined pieces) are left as they are.
struct SentencePieceRules {
  Charsmap charsmap;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  bool treat_whitespace_as_suffix = false;
  Trie verbatim;
};
std::unique_ptr<Normalizer> make_normalizer(SentencePieceRules rules);

inline constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";  // ▁ U+2581

}  // namespace nibble::text
