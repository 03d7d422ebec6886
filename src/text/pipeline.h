// The one tokenizer: added tokens, normalizer, pre-tokenizer, model, post-processor and decoder in a row.
// Each format (tokenizer.json, GGUF, SentencePiece, tiktoken …) fills in the parts; see the loaders in
// loaders.h.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "text/added_tokens.h"
#include "text/decode.h"
#include "text/model.h"
#include "text/normalize.h"
#include "text/pretokenize.h"
#include "text/tokenizer.h"
#include "text/vocab.h"

namespace nibble::text {

struct PipelineParts {
  std::vector<std::pair<std::string, int32_t>>
      spelling;  // what piece() and id() answer; added tokens need not be in it
  std::vector<AddedToken> added;
  std::unique_ptr<Normalizer> normalizer;       // null: none
  std::unique_ptr<PreTokenizer> pre_tokenizer;  // null: none
  std::unique_ptr<Model> model;
  std::unique_ptr<Decoder> decoder;     // null: pieces joined by spaces, as `tokenizers` does it
  std::vector<int32_t> prefix, suffix;  // what add_special puts around the text
  std::vector<int32_t> special;         // special ids besides the special ones of `added`
  bool sentencepiece_decode = false;    // the sentencepiece library's own rules instead of `decoder`
  bool strips_leading_space = false;    // for those: whether a dummy prefix has to go
  bool strips_all_leading_space = false;
  std::optional<int32_t> bos, eos, unk, pad;
  std::optional<PairTemplate> pair;
  std::string chat_template;
  std::string kind, source;  // the description's parts: \"byte-level BPE\", \"gguf\"
};

class Pipeline : public Tokenizer {
 public:
  // Errors: Error{where} for ids outside the vocabulary.
  Pipeline(PipelineParts parts, const std::string& where);

  std::vector<TokenSpan> encode_spans(std::string_view text, EncodeOptions options) const override;
  std::string decode(std::span<const int32_t> ids, bool skip_special) const override;
  std::string piece(int32_t id) const override;
  std::optional<int32_t> id(std::string_view piece) const override;
  int32_t vocab_size() const override { return spelling_.size(); }
  bool is_special(int32_t id) const override;

 private:
  void encode_text(Arena& arena, const Piece& text, const EncodeOptions& options,
                   std::vector<TokenSpan>& out) const;
  std::string decode_sentencepiece(std::span<const int32_t> ids, bool skip_special) const;

  PipelineParts parts_;
  Vocab spelling_;
  std::vector<bool> special_;
  AddedTokens raw_added_, normalized_added_;
};

}  // namespace nibble::text
