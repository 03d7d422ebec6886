// Byte-pair encoding (Sennrich et al. 2016): the pair of neighbours with the best rank is merged until none
// is left; of equal ranks the leftmost goes first.
//
// Three published kinds differ in where a pair's rank comes from:
//   merges.txt / tokenizer.json   a table of pairs
//   tiktoken                      the id of the piece that the two form
//   SentencePiece, llama2.c       the score of the piece that the two form
// A word that is a piece of the vocabulary and comes out of the merges whole is remembered as such, so that
// common words cost one look-up. Long words use a heap: O(n log n).
#pragma once
#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/flat_map.h"
#include "text/model.h"
#include "text/trie.h"
#include "text/vocab.h"

namespace nibble::text {

struct BpeOptions {
  bool bytes = false;  // the vocabulary spells raw bytes, and words start out as bytes, not characters
  bool ignore_merges = false;  // a word that is in the vocabulary is taken whole without looking at merges
  bool byte_fallback = false;  // an unknown character becomes the tokens <0x00> … <0xFF> of its bytes
  bool fuse_unknown = false;   // a run of unknown characters is one unknown token
  int32_t unknown = -1;        // -1: unknown characters are dropped
  std::string continuing_prefix, end_of_word_suffix;
};

class Bpe : public Model {
 public:
  struct Merge {
    uint32_t rank;
    int32_t id;
  };
  // Ranks by pair. Errors: Error{where} for a merge whose parts or result are not in the vocabulary.
  Bpe(std::shared_ptr<const Vocab> vocab, const std::vector<std::pair<std::string, std::string>>& merges,
      BpeOptions options, const std::string& where);
  // Ranks by piece: ranks[id], kNever for pieces that no merge may form. `whole` pieces (user-defined ones)
  // stand as they are wherever their text appears; `unused` ones take part in merges and are taken apart
  // again afterwards.
  Bpe(std::shared_ptr<const Vocab> vocab, std::vector<uint32_t> ranks, const std::vector<int32_t>& whole,
      const std::vector<int32_t>& unused, BpeOptions options, const std::string& where);

  void encode(const Piece& word, std::vector<TokenSpan>& out) const override;

  static constexpr uint32_t kNever = UINT32_MAX;

 private:
  struct Symbol;
  struct Unmerged;
  void prepare(const std::string& where);
  void encode_word(const Piece& word, std::vector<TokenSpan>& out) const;
  void start(std::string_view text, std::vector<Symbol>& symbols) const;
  Merge rank(std::string_view text, const Symbol& a, const Symbol& b) const;
  void merge_short(std::string_view text, std::vector<Symbol>& symbols, Unmerged* unmerged) const;
  void merge_long(std::string_view text, std::vector<Symbol>& symbols, Unmerged* unmerged) const;
  void give(const Piece& word, const std::vector<Symbol>& symbols, const Unmerged* unmerged,
            std::vector<TokenSpan>& out) const;

  std::shared_ptr<const Vocab> vocab_;
  BpeOptions options_;
  FlatMap<Merge> pairs_;
  std::vector<uint32_t> ranks_;  // empty: ranks by pair
  Trie whole_pieces_;
  std::vector<bool> unused_;
  int32_t byte_ids_[256];            // bytes: the piece of each byte; byte_fallback: the token <0xXX>
  int32_t ascii_ids_[128];           // the piece of each ASCII character
  bool split_before_space_ = false;  // no piece has ▁ after another character, so words may be cut there
  enum : uint8_t { kUnknownYet, kWhole, kSplits };
  mutable std::unique_ptr<std::atomic<uint8_t>[]> outcome_;  // of each piece as a word of its own
};

// GPT-2's spelling of bytes as printable characters ("Ġ" is a space). spelled -> bytes; false when a
// character is none of the 256.
bool bytes_of_alphabet(std::string_view spelled, std::string& bytes);
std::string alphabet_of_bytes(std::string_view bytes);

}  // namespace nibble::text
