// The tokenizer inside a GGUF file: tokenizer.ggml.model says which kind, tokenizer.ggml.pre which splitting
// patterns. Source of the names and defaults: llama.cpp's llama-vocab.cpp (the file format's reference
// program).
#include <algorithm>

#include "base/error.h"
#include "base/gguf.h"
#include "base/json.h"
#include "base/text.h"
#include "text/loaders.h"
#include "text/wordpiece.h"

namespace nibble::text {
namespace {

using Type = ScoredVocab::Type;

struct Splitting {
  std::vector<std::string> patterns;
  bool ignore_merges = false, add_bos = false, nfc = false;
};

const char* const kGpt4oPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const char* const kTekkenPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const char* const kBloomPattern = R"( ?[^(\s|.,!?…。，、।۔،)]+)";

// Which patterns the names of tokenizer.ggml.pre stand for.
Splitting splitting_of(const GgufFile& file) {
  const std::string gpt2(kGpt2Pattern);
  const auto is_one = [](const std::string& name, std::initializer_list<const char*> names) {
    return std::any_of(names.begin(), names.end(), [&](const char* n) { return name == n; });
  };
  const auto architecture = file.string("general.architecture", "");
  // Files made before the key existed: the architecture is the best guess.
  const auto guess = architecture == "gptneox" ? "gpt-neox" : architecture == "gpt2" ? "gpt-2" : "default";
  const auto pre = file.string("tokenizer.ggml.pre", guess);
  if (is_one(pre, {"gpt-2", "phi-2", "jina-es", "jina-de", "jina-v1-en", "jina-v2-code", "jina-v2-es",
                   "jina-v2-de", "gigachat", "a.x-4.0", "mellum", "roberta-bpe", "trillion",
                   "granite-docling", "modern-bert"}))
    return {{gpt2}};
  if (is_one(pre, {"gpt-neox", "mpt", "olmo", "dolly-v2", "pythia"})) return {{gpt2}, false, false, true};
  if (is_one(pre, {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}))
    return {{R"(\p{N})", gpt2}};
  if (is_one(pre, {"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"}))
    return {{kLlama3Pattern}, true, true};
  if (is_one(pre, {"dbrx", "smaug-bpe", "chatglm-bpe", "glm4"})) return {{kLlama3Pattern}};
  if (is_one(pre, {"qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "kormo"}))
    return {{kQwen2Pattern}, false, false, true};
  if (is_one(pre, {"hunyuan"})) return {{kQwen2Pattern}};
  if (is_one(pre, {"gpt-4o", "llama4"})) return {{kGpt4oPattern}};
  if (is_one(pre, {"tekken"})) return {{kTekkenPattern}, true, true};
  if (is_one(pre, {"bloom", "poro-chat", "gpt3-finnish"})) return {{kBloomPattern}};
  if (is_one(pre, {"viking"})) return {{kBloomPattern, R"(\p{N})"}};
  if (is_one(pre, {"falcon"})) return {{R"([\p{P}\$\+<=>\^~\|`]+)", gpt2, "[0-9][0-9][0-9]"}};
  if (is_one(pre, {"deepseek-coder"}))
    return {{R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)",
             R"([\x{4E00}-\x{9FA5}\x{0800}-\x{4E00}\x{AC00}-\x{D7FF}]+)", R"(\p{N})"}};
  require(pre == "default", file.path(),
          "tokenizer.ggml.pre is \"{}\", a way of splitting words that is not known", pre);
  return {{R"([\p{P}\$\+<=>\^~\|]+)", gpt2, R"(\p{N}+)", "[0-9][0-9][0-9]"}};
}

std::vector<Type> token_types(const GgufFile& file, size_t count) {
  std::vector<Type> types(count, Type::kNormal);
  if (file.find("tokenizer.ggml.token_type") == nullptr) return types;
  const auto& stored = file.array("tokenizer.ggml.token_type").integers;
  require(stored.size() == count, file.path(), "tokenizer.ggml.token_type has {} entries for {} tokens",
          stored.size(), count);
  for (size_t i = 0; i < count; ++i) {
    // 0, "undefined", is written by some converters.
    require(stored[i] >= 0 && stored[i] <= 6, file.path(), "token {} has unknown type {}", i, stored[i]);
    types[i] = stored[i] == 0 ? Type::kNormal : static_cast<Type>(stored[i]);
  }
  return types;
}

std::optional<int32_t> id_of(const GgufFile& file, const char* key, size_t count) {
  const auto value = file.integer(std::string("tokenizer.ggml.") + key, -1);
  if (value < 0 || value > INT32_MAX) return std::nullopt;
  require(static_cast<size_t>(value) < count, file.path(), "tokenizer.ggml.{} is {} but there are {} tokens",
          key, value, count);
  return static_cast<int32_t>(value);
}

void add_token(PipelineParts& parts, const std::string& content, int32_t id, bool special, bool rstrip) {
  AddedToken token;
  token.id = id;
  token.content = content;
  token.special = special;
  token.rstrip = rstrip;
  parts.added.push_back(std::move(token));
}

void read_byte_bpe(const GgufFile& file, const std::vector<Type>& types, VocabSource& source) {
  const std::vector<std::string>& tokens = source.tokens;
  PipelineParts& parts = source.parts;
  source.vocab.reserve(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    if (types[i] == Type::kNormal) {
      source.vocab.emplace_back(tokens[i], id);
    } else if (types[i] != Type::kUnused) {
      add_token(parts, tokens[i], id, types[i] != Type::kUserDefined, false);
    }
    parts.spelling.emplace_back(tokens[i], id);
  }
  auto& merges = source.merges;
  for (const std::string& line : file.array("tokenizer.ggml.merges").strings) {
    // A piece may itself hold a space only if it is not spelled in the byte alphabet; the first byte is never
    // one.
    const size_t blank = line.find(' ', 1);
    require(blank != std::string::npos, file.path(),
            "merge {} should be two pieces with a space between, got \"{}\"", merges.size() + 1,
            replace_invalid_utf8(line.substr(0, 60)));
    merges.emplace_back(line.substr(0, blank), line.substr(blank + 1));
  }
}

void build_byte_bpe(const VocabSource& source, PipelineParts& parts, const std::string& where) {
  parts.model = make_byte_bpe(source.vocab, source.merges, source.ignore_merges, true, -1, where);
  parts.pre_tokenizer = make_regex_splits(source.patterns, where);
  if (source.nfc) parts.normalizer = make_normalizer(Json{{"type", "NFC"}}, where);
  parts.decoder = make_decoder("ByteLevel", where);
}

void read_sentencepiece(const GgufFile& file, const std::vector<Type>& types, bool unigram,
                        VocabSource& source) {
  const std::vector<std::string>& tokens = source.tokens;
  PipelineParts& parts = source.parts;
  ScoredVocab& vocab = source.scored;
  vocab.unigram = unigram;
  vocab.pieces = tokens;
  vocab.types = types;
  vocab.scores.assign(tokens.size(), 0.0f);
  if (file.find("tokenizer.ggml.scores") != nullptr) {
    const auto& scores = file.array("tokenizer.ggml.scores").numbers;
    require(scores.size() == tokens.size(), file.path(), "tokenizer.ggml.scores has {} entries for {} tokens",
            scores.size(), tokens.size());
    for (size_t i = 0; i < scores.size(); ++i) vocab.scores[i] = static_cast<float>(scores[i]);
  }
  vocab.rules.add_dummy_prefix = file.boolean("tokenizer.ggml.add_space_prefix", true);
  vocab.rules.remove_extra_whitespaces = file.boolean("tokenizer.ggml.remove_extra_whitespaces", unigram);
  if (file.find("tokenizer.ggml.precompiled_charsmap") != nullptr) {
    std::string blob;
    for (const int64_t byte : file.array("tokenizer.ggml.precompiled_charsmap").integers)
      blob += static_cast<char>(byte);
    vocab.rules.charsmap = Charsmap(blob, file.path());
  }
  // Phi-3's chat tokens swallow the white space behind them, which the file cannot say.
  const bool rstrip = file.string("general.architecture", "") == "phi3";
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (types[i] == Type::kByte) vocab.byte_fallback = true;
    const auto id = static_cast<int32_t>(i);
    const bool plain = tokens[i] == "<s>" || tokens[i] == "<unk>" || tokens[i] == "<|endoftext|>";
    if (types[i] == Type::kControl) add_token(parts, tokens[i], id, true, rstrip && !plain);
    if (types[i] == Type::kUserDefined) {
      // Converters write the spaces of added tokens as ▁ or as they are; both stand for spaces of the text.
      std::string content = tokens[i];
      for (size_t at = 0; (at = content.find(kSpaceSymbol, at)) != std::string::npos;)
        content.replace(at, 3, " ");
      add_token(parts, content, id, false, rstrip && !plain);
      vocab.types[i] = Type::kControl;  // found beforehand, not by the model
    }
  }
  for (size_t i = 0; i < tokens.size(); ++i)
    if (types[i] == Type::kControl || types[i] == Type::kUnknown)
      parts.special.push_back(static_cast<int32_t>(i));
}

void build_sentencepiece(VocabSource& source, PipelineParts& parts, const std::string& where) {
  const auto unknown = parts.unk;
  const std::vector<int32_t> special = parts.special;
  build_scored(parts, std::move(source.scored), where);
  parts.special = special;  // as the file types them, not as the model looks for them
  if (unknown) parts.unk = unknown;
}

void build_wordpiece(const GgufFile& file, const std::vector<std::string>& tokens,
                     const std::vector<Type>& types, PipelineParts& parts) {
  // GGUF marks the start of a word with ▁ where BERT marks its inner pieces with ##.
  std::vector<std::pair<std::string, int32_t>> vocab;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    std::string spelled = tokens[i];
    if (types[i] == Type::kNormal) {
      if (spelled.starts_with(kSpaceSymbol))
        spelled.erase(0, kSpaceSymbol.size());
      else
        spelled.insert(0, "##");
    }
    if (types[i] == Type::kControl) add_token(parts, spelled, id, true, false);
    if (types[i] == Type::kUnknown) parts.special.push_back(id);
    vocab.emplace_back(spelled, id);
  }
  auto lookup = std::make_shared<Vocab>();
  lookup->build(vocab, file.path());
  parts.spelling = std::move(vocab);
  WordPiece::Options options;
  options.unknown = parts.unk.value_or(-1);
  parts.model = std::make_unique<WordPiece>(lookup, options);
  parts.normalizer = make_normalizer(Json{{"type", "BertNormalizer"}}, file.path());
  parts.pre_tokenizer = make_pre_tokenizer(Json{{"type", "BertPreTokenizer"}}, file.path());
  parts.decoder = make_decoder("WordPiece", file.path());
}

}  // namespace

VocabSource read_gguf_vocab(const GgufFile& file) {
  const std::string& path = file.path();
  require(file.find("tokenizer.ggml.model") != nullptr, path, "holds no tokenizer (no tokenizer.ggml.model)");
  const std::string model = file.string("tokenizer.ggml.model");
  const auto& tokens = file.array("tokenizer.ggml.tokens").strings;
  require(!tokens.empty() && tokens.size() < static_cast<size_t>(Vocab::kMaxId), path,
          "tokenizer.ggml.tokens holds {} tokens", tokens.size());
  const auto types = token_types(file, tokens.size());

  VocabSource source;
  source.tokens = tokens;
  PipelineParts& parts = source.parts;
  parts.bos = id_of(file, "bos_token_id", tokens.size());
  parts.eos = id_of(file, "eos_token_id", tokens.size());
  parts.unk = id_of(file, "unknown_token_id", tokens.size());
  parts.pad = id_of(file, "padding_token_id", tokens.size());
  bool add_bos = false, add_eos = false;
  std::string kind;
  if (model == "gpt2") {
    Splitting splitting = splitting_of(file);
    read_byte_bpe(file, types, source);
    source.patterns = std::move(splitting.patterns);
    source.ignore_merges = splitting.ignore_merges;
    source.nfc = splitting.nfc;
    add_bos = splitting.add_bos;
    kind = "byte-level BPE";
  } else if (model == "llama" || model == "t5") {
    source.kind = VocabSource::Kind::kScored;
    read_sentencepiece(file, types, model == "t5", source);
    (model == "t5" ? add_eos : add_bos) = true;
    kind = model == "t5" ? "SentencePiece unigram" : "SentencePiece BPE";
  } else if (model == "bert") {
    source.kind = VocabSource::Kind::kWordPiece;
    if (!parts.bos) parts.bos = id_of(file, "cls_token_id", tokens.size());
    if (!parts.eos)
      parts.eos = id_of(file, "seperator_token_id", tokens.size());  // spelled like this in the format
    add_bos = add_eos = true;
    kind = "WordPiece";
  } else {
    fail(path, "the tokenizer model \"{}\" is not known; gpt2, llama, t5 and bert are", model);
  }
  if (file.boolean("tokenizer.ggml.add_bos_token", add_bos) && parts.bos) parts.prefix = {*parts.bos};
  if (file.boolean("tokenizer.ggml.add_eos_token", add_eos) && parts.eos) parts.suffix = {*parts.eos};
  parts.chat_template = file.string("tokenizer.chat_template", "");
  parts.kind = kind;
  parts.source = "gguf";
  return source;
}

std::shared_ptr<const Tokenizer> load_gguf_tokenizer(const std::string& path) {
  const GgufFile file = GgufFile::open(path);
  VocabSource source = read_gguf_vocab(file);
  PipelineParts parts = std::move(source.parts);
  if (source.kind == VocabSource::Kind::kByteBpe)
    build_byte_bpe(source, parts, path);
  else if (source.kind == VocabSource::Kind::kScored)
    build_sentencepiece(source, parts, path);
  else
    build_wordpiece(file, source.tokens, token_types(file, source.tokens.size()), parts);
  return std::make_shared<Pipeline>(std::move(parts), path);
}

}  // namespace nibble::text
