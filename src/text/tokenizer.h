// Tokenizers: text to ids and back, with the ids that the model was trained on.
//
// Kinds: byte-level BPE and WordPiece-free HF pipelines (tokenizer.json, vocab.json + merges.txt, GGUF
// "gpt2"), tiktoken ranks (Llama 3's tokenizer.model), SentencePiece BPE and unigram (tokenizer.model /
// spiece.model, GGUF "llama"/"t5", llama2.c's tokenizer.bin). Ids equal those of the `tokenizers` and
// `sentencepiece` packages. Threading: const after loading; safe to use from any thread.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::text {

// Bytes [begin, end) of a text.
struct ByteRange {
  size_t begin, end;
};

struct EncodeOptions {
  bool add_special = true;  // BOS / EOS as the tokenizer's own post-processor puts them
  bool parse_special =
      true;  // a special token's text inside the input becomes its id; false for text from strangers
  // Where parse_special does not hold (in order, without overlap): a special token that touches one is text.
  std::span<const ByteRange> literal = {};
};

// A token and the bytes [begin, end) of the input it stands for (empty range for an added BOS/EOS). Ranges
// are in order, do not overlap, and together with white space that normalization dropped they cover the
// input; a character that byte fallback split over several tokens gives each of them the range of the bytes
// it holds.
struct TokenSpan {
  int32_t id;
  size_t begin, end;
};

// What stands around texts that a model reads as wholes: before · a · after, or before · a · between · b ·
// after (BERT: [CLS] a [SEP] b [SEP]).
struct PairTemplate {
  std::vector<int32_t> before, between, after;
  int32_t second_type = 0;  // token type of b and what follows it
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  virtual std::vector<TokenSpan> encode_spans(std::string_view text, EncodeOptions options = {}) const = 0;
  std::vector<int32_t> encode(std::string_view text, EncodeOptions options = {}) const;

  // The bytes that the ids stand for, as the reference's decode gives them (the leading space of
  // SentencePiece removed at the start of the text, no clean-up of spaces). May end inside a UTF-8 character:
  // see StreamDecoder.
  virtual std::string decode(std::span<const int32_t> ids, bool skip_special = true) const = 0;
  // The vocabulary's own spelling ("Ġthe", "▁the", "<0x0A>"). Errors: an id outside the vocabulary.
  virtual std::string piece(int32_t id) const = 0;
  virtual std::optional<int32_t> id(std::string_view piece) const = 0;
  // Ids are 0 … size - 1, added tokens included. May be smaller than the model's embedding table.
  virtual int32_t vocab_size() const = 0;
  virtual bool is_special(int32_t id) const = 0;

  // What the tokenizer's own configuration says; nullopt when it says nothing.
  std::optional<int32_t> bos, eos, unk, pad;
  std::optional<PairTemplate> pair;  // from tokenizer.json's post-processor
  // The Jinja source of its chat template, or "" when it has none (tokenizer_config.json,
  // chat_template.jinja, GGUF).
  std::string chat_template;
  // A few words on what it is, for `nibble inspect`: "byte-level BPE, 49,152 tokens (gguf)".
  std::string description;
};

// From a model directory (tokenizer.json first, then tokenizer.model, spiece.model, vocab.json + merges.txt,
// tokenizer.bin; tokenizer_config.json, special_tokens_map.json and generation_config.json beside it are
// read), from any of these files, from a .gguf, or from a .bin checkpoint (then tokenizer.bin or tok*.bin in
// its folder). Errors: Error{path} says what was looked for and where; a kind it does not know is named.
std::shared_ptr<const Tokenizer> load_tokenizer(const std::string& path);

// Text that grows token by token and never ends inside a UTF-8 character. Bytes that cannot become valid come
// out as U+FFFD, at once where that is certain and by finish() at the end.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, bool skip_special = true);
  // What the new token adds to the text so far; often "" and never a partial character.
  std::string push(int32_t id);
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_;
  std::vector<int32_t> window_;  // the last tokens, from one that added bytes on
  size_t kept_ = 0;              // how many of them stay until those after them give text of their own
  size_t known_ = 0;             // bytes of their decoding that were taken over
  std::string pending_;          // bytes of a character that is not complete
};

}  // namespace nibble::text
