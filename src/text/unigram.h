// Unigram language model (Kudo 2018): the segmentation whose pieces' scores sum highest (Viterbi).
#pragma once
#include <memory>
#include <vector>

#include "text/model.h"
#include "text/trie.h"
#include "text/vocab.h"

namespace nibble::text {

enum class UnigramKind : uint8_t { kNormal, kUserDefined, kAbsent };

struct UnigramOptions {
  int32_t unknown = -1;        // -1: unknown characters are dropped
  bool byte_fallback = false;  // an unknown character becomes the tokens <0x00> … <0xFF> of its bytes
  bool single_precision =
      false;  // sums in f32, as the sentencepiece library has them; f64 as `tokenizers` has them
};

class Unigram : public Model {
 public:
  // scores[id] and kinds[id] for every id; absent ones (control, unused, byte pieces) never match text. The
  // penalty of an unknown character is 10 below the lowest score among `normal_floor` ids. Errors:
  // Error{where}.
  Unigram(std::shared_ptr<const Vocab> vocab, std::vector<double> scores, std::vector<UnigramKind> kinds,
          double lowest, double highest, UnigramOptions options, const std::string& where);
  void encode(const Piece& word, std::vector<TokenSpan>& out) const override;

 private:
  template <class Sum>
  void search(const Piece& word, std::vector<TokenSpan>& out) const;

  std::shared_ptr<const Vocab> vocab_;
  Trie trie_;
  std::vector<double> scores_;
  std::vector<UnigramKind> kinds_;
  double lowest_, highest_;
  UnigramOptions options_;
  int32_t byte_ids_[256];
};

}  // namespace nibble::text
