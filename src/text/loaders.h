// One loader per file format; load_tokenizer() in tokenizer.h chooses among them.
// All files are untrusted: Error{path} says what is wrong with them.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "text/pipeline.h"

namespace nibble {
class GgufFile;
}

namespace nibble::text {

// What tokenizer_config.json, special_tokens_map.json, added_tokens.json, generation_config.json and
// chat_template.jinja in the tokenizer's folder say.
struct SideFiles {
  struct Name {
    bool said = false;  // a null counts
    std::optional<std::string> token;
  };
  Name bos, eos, unk, pad;
  std::optional<int32_t> bos_id, eos_id, pad_id;  // generation_config.json
  std::optional<bool> add_bos, add_eos;
  std::vector<AddedToken> added;     // ids known
  std::vector<std::string> special;  // further special tokens, by name
  std::string tokenizer_class, chat_template;
};
SideFiles read_side_files(const std::string& directory);

// The file that load_tokenizer() reads for what it is given (of vocab.json and merges.txt the first).
std::string tokenizer_file(const std::string& given);
bool is_gguf(const std::string& path);

// Names, flags, added tokens and the template into the parts. Prefix and suffix follow add_bos / add_eos
// where they are said. `default_bos/eos`: what holds where they are not.
void apply_side_files(PipelineParts& parts, const SideFiles& side, bool default_add_bos, bool default_add_eos,
                      const std::string& where);

std::shared_ptr<const Tokenizer> load_tokenizer_json(const std::string& path, const SideFiles& side);
std::shared_ptr<const Tokenizer> load_vocab_and_merges(const std::string& vocab_path,
                                                       const std::string& merges_path, const SideFiles& side);
std::shared_ptr<const Tokenizer> load_sentencepiece(const std::string& path, const SideFiles& side);
std::shared_ptr<const Tokenizer> load_tiktoken(const std::string& path, const SideFiles& side);
// llama2.c's tokenizer.bin: i32 longest piece, then per piece f32 score, i32 length, bytes.
std::shared_ptr<const Tokenizer> load_llama2c(const std::string& path);
std::shared_ptr<const Tokenizer> load_gguf_tokenizer(const std::string& path);

// From a tokenizer.json's text (also what the fuzz target calls).
std::shared_ptr<const Tokenizer> parse_tokenizer_json(std::string_view text, const SideFiles& side,
                                                      const std::string& where);
std::shared_ptr<const Tokenizer> parse_sentencepiece(std::string_view bytes, const SideFiles& side,
                                                     const std::string& where);

// Pieces of a SentencePiece-like vocabulary, whatever file they came from.
struct ScoredVocab {
  enum Type : uint8_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };
  std::vector<std::string> pieces;
  std::vector<float> scores;
  std::vector<Type> types;
  bool unigram = false;
  bool byte_fallback = false;
  SentencePieceRules rules;
};

// A vocabulary as its file gives it, before the parts that do the work are made: what loading and exporting
// share.
struct VocabSource {
  enum class Kind : uint8_t { kByteBpe, kScored, kWordPiece };
  Kind kind = Kind::kByteBpe;
  std::vector<std::string> tokens;                          // by id, as spelled in the file
  std::vector<std::pair<std::string, int32_t>> vocab;       // kByteBpe: what merges are made of
  std::vector<std::pair<std::string, std::string>> merges;  // kByteBpe
  std::vector<std::string> patterns;        // kByteBpe: words are split by them, one after another
  bool ignore_merges = false, nfc = false;  // kByteBpe
  ScoredVocab scored;                       // kScored
  PipelineParts parts;                      // added tokens, prefix, suffix, names, template
};
VocabSource read_gguf_vocab(const GgufFile& file);
VocabSource read_llama2c_vocab(const std::string& path);

// Normalizer, model, decoder, special ids and unk of `parts`. Errors: Error{where}.
void build_scored(PipelineParts& parts, ScoredVocab vocab, const std::string& where);

// Byte-level BPE from pieces in GPT-2's alphabet.
std::unique_ptr<Model> make_byte_bpe(const std::vector<std::pair<std::string, int32_t>>& vocab,
                                     const std::vector<std::pair<std::string, std::string>>& merges,
                                     bool ignore_merges, bool skip_unknown_merges, int32_t unknown,
                                     const std::string& where);

// Splitting patterns of byte-level models.
extern const char* const kLlama3Pattern;
extern const char* const kQwen2Pattern;

}  // namespace nibble::text
