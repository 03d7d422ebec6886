// Byte-level BPE from vocab.json + merges.txt, from tiktoken's ranks, and what GGUF and tokenizer.json share
// with them.
#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "text/base64.h"
#include "text/bpe.h"
#include "text/loaders.h"
#include "text/vocab_json.h"

namespace nibble::text {

const char* const kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const char* const kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

std::unique_ptr<Model> make_byte_bpe(const std::vector<std::pair<std::string, int32_t>>& vocab,
                                     const std::vector<std::pair<std::string, std::string>>& merges,
                                     bool ignore_merges, bool skip_unknown_merges, int32_t unknown,
                                     const std::string& where) {
  std::vector<std::pair<std::string, int32_t>> raw;
  raw.reserve(vocab.size() + 1);
  std::string bytes;
  raw.emplace_back(std::string(), unknown);  // keeps the size right; matches no text
  for (const auto& [piece, id] : vocab) {
    raw[0].second = std::max(raw[0].second, id);
    if (bytes_of_alphabet(piece, bytes)) raw.emplace_back(bytes, id);
  }
  auto lookup = std::make_shared<Vocab>();
  lookup->build(raw, where);
  std::vector<std::pair<std::string, std::string>> pairs;
  pairs.reserve(merges.size());
  for (const auto& [left, right] : merges) {
    std::pair<std::string, std::string> pair;
    const bool spelled = bytes_of_alphabet(left, pair.first) && bytes_of_alphabet(right, pair.second);
    if (skip_unknown_merges && (!spelled || lookup->find(pair.first) < 0 || lookup->find(pair.second) < 0 ||
                                lookup->find(pair.first + pair.second) < 0))
      continue;
    require(spelled, where, "merge {} joins \"{}\" and \"{}\", which are not spelled in the byte alphabet",
            pairs.size() + 1, left, right);
    pairs.push_back(std::move(pair));
  }
  BpeOptions options;
  options.bytes = true;
  options.ignore_merges = ignore_merges;
  options.unknown = unknown;
  return std::make_unique<Bpe>(lookup, pairs, options, where);
}

namespace {

std::vector<std::pair<std::string, std::string>> read_merges(const std::string& path) {
  std::vector<std::pair<std::string, std::string>> merges;
  const std::string text = read_file(path, uint64_t{1} << 30);
  size_t number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = std::string_view(text).substr(at, end - at);
    at = end + 1;
    ++number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || (number == 1 && line.starts_with("#version"))) continue;
    const size_t blank = line.find(' ');
    require(blank != std::string_view::npos && blank > 0 && blank + 1 < line.size() &&
                line.find(' ', blank + 1) == std::string_view::npos,
            path, "line {} should be two pieces with a space between, got \"{}\"", number,
            line.substr(0, 60));
    merges.emplace_back(line.substr(0, blank), line.substr(blank + 1));
  }
  return merges;
}

}  // namespace

std::shared_ptr<const Tokenizer> load_vocab_and_merges(const std::string& vocab_path,
                                                       const std::string& merges_path,
                                                       const SideFiles& side) {
  const std::string text = read_file(vocab_path, uint64_t{1} << 30);
  PipelineParts parts;
  parts.spelling = parse_vocab_json(text, vocab_path);
  require(!parts.spelling.empty(), vocab_path, "the vocabulary is empty");
  parts.model = make_byte_bpe(parts.spelling, read_merges(merges_path), false, false, -1, merges_path);
  const bool qwen = side.tokenizer_class.find("Qwen2") != std::string::npos;
  const bool roberta = side.tokenizer_class.find("Roberta") != std::string::npos;
  parts.pre_tokenizer = make_regex_splits({qwen ? kQwen2Pattern : std::string(kGpt2Pattern)}, vocab_path);
  if (qwen) parts.normalizer = make_normalizer(Json{{"type", "NFC"}}, vocab_path);
  parts.decoder = make_decoder("ByteLevel", vocab_path);
  // These two files do not say which tokens are special: the names that GPT-2, OPT, RoBERTa and Qwen use.
  for (const auto& [piece, id] : parts.spelling) {
    const bool endoftext = piece == "<|endoftext|>";
    if (!endoftext && piece != "<s>" && piece != "</s>" && piece != "<pad>" && piece != "<unk>" &&
        piece != "<mask>" && piece != "<|im_start|>" && piece != "<|im_end|>")
      continue;
    AddedToken token;
    token.id = id;
    token.content = piece;
    token.special = true;
    token.lstrip = piece == "<mask>";
    if (endoftext) parts.bos = parts.eos = parts.unk = id;
    parts.added.push_back(std::move(token));
  }
  parts.kind = "byte-level BPE";
  parts.source = "vocab.json";
  apply_side_files(parts, side, roberta, roberta, vocab_path);
  return std::make_shared<Pipeline>(std::move(parts), vocab_path);
}

namespace {

// Llama 3's names for the 256 ids behind its ranks.
std::string llama3_special(int32_t i) {
  constexpr const char* kNames[] = {"begin_of_text",
                                    "end_of_text",
                                    "reserved_special_token_0",
                                    "reserved_special_token_1",
                                    "reserved_special_token_2",
                                    "reserved_special_token_3",
                                    "start_header_id",
                                    "end_header_id",
                                    "reserved_special_token_4",
                                    "eot_id"};
  if (i < 10) return fmt::format("<|{}|>", kNames[i]);
  return fmt::format("<|reserved_special_token_{}|>", i - 5);
}

}  // namespace

std::shared_ptr<const Tokenizer> load_tiktoken(const std::string& path, const SideFiles& side) {
  const std::string text = read_file(path, uint64_t{1} << 30);
  PipelineParts parts;
  std::vector<std::pair<std::string, int32_t>> raw;
  std::string bytes;
  size_t number = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = std::string_view(text).substr(at, end - at);
    at = end + 1;
    ++number;
    if (line.empty()) continue;
    const size_t blank = line.find(' ');
    bool ok =
        blank != std::string_view::npos && decode_base64(line.substr(0, blank), bytes) && !bytes.empty();
    int32_t rank = 0;
    for (size_t i = blank + 1; ok && i < line.size(); ++i) {
      ok = line[i] >= '0' && line[i] <= '9' && rank < Vocab::kMaxId;
      if (ok) rank = rank * 10 + (line[i] - '0');
    }
    require(ok && blank + 1 < line.size() && rank < Vocab::kMaxId, path,
            "line {} should be base64 and a rank, got \"{}\"", number,
            replace_invalid_utf8(line.substr(0, 60)));
    raw.emplace_back(bytes, rank);
    parts.spelling.emplace_back(alphabet_of_bytes(bytes), rank);
  }
  require(!raw.empty(), path, "holds no ranks");
  auto lookup = std::make_shared<Vocab>();
  lookup->build(raw, path);
  std::vector<uint32_t> ranks(static_cast<size_t>(lookup->size()), Bpe::kNever);
  for (const auto& [piece, rank] : raw) ranks[static_cast<size_t>(rank)] = static_cast<uint32_t>(rank);
  BpeOptions options;
  options.bytes = true;
  options.ignore_merges = true;
  parts.model = std::make_unique<Bpe>(lookup, std::move(ranks), std::vector<int32_t>(),
                                      std::vector<int32_t>(), options, path);
  parts.pre_tokenizer = make_regex_splits({kLlama3Pattern}, path);
  parts.decoder = make_decoder("ByteLevel", path);
  const int32_t first = lookup->size();
  for (int32_t i = 0; i < 256; ++i) {
    AddedToken token;
    token.id = first + i;
    token.content = llama3_special(i);
    token.special = true;
    parts.added.push_back(std::move(token));
  }
  parts.bos = first;
  parts.eos = first + 1;
  parts.kind = "byte-level BPE";
  parts.source = "tiktoken ranks";
  apply_side_files(parts, side, true, false, path);
  return std::make_shared<Pipeline>(std::move(parts), path);
}

}  // namespace nibble::text
