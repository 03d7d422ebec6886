// WordPiece (BERT): the longest piece that fits, from the left; inner pieces are spelled with a prefix
// ("##"). WordLevel is the same with whole words only.
#pragma once
#include <memory>
#include <string>

#include "text/model.h"
#include "text/vocab.h"

namespace nibble::text {

class WordPiece : public Model {
 public:
  struct Options {
    int32_t unknown = -1;  // -1: an unknown word is dropped
    std::string prefix = "##";
    size_t max_characters = 100;  // a longer word is unknown
    bool whole_words = false;
  };
  WordPiece(std::shared_ptr<const Vocab> vocab, Options options)
      : vocab_(std::move(vocab)), options_(std::move(options)) {}
  void encode(const Piece& word, std::vector<TokenSpan>& out) const override;

 private:
  std::shared_ptr<const Vocab> vocab_;
  Options options_;
};

}  // namespace nibble::text
