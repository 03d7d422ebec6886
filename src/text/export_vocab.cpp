#include "text/export_vocab.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "base/text.h"

namespace nibble::text {
namespace {

using Document = nlohmann::json;
using Type = ScoredVocab::Type;

Document byte_level() {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
}

Document split_by(const std::vector<std::string>& patterns) {
  Document steps = Document::array();
  for (const std::string& pattern : patterns)
    steps.push_back(
        {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}, {"invert", false}});
  steps.push_back(byte_level());
  return {{"type", "Sequence"}, {"pretokenizers", steps}};
}

// What stands before and behind every text.
Document around(const VocabSource& source) {
  const PipelineParts& parts = source.parts;
  if (parts.prefix.empty() && parts.suffix.empty()) return nullptr;
  Document used = Document::object();
  const auto token = [&](int32_t id, int type) {
    const std::string name = spelled(source, id);
    used[name] = {{"id", name}, {"ids", {id}}, {"tokens", {name}}};
    return Document{{"SpecialToken", {{"id", name}, {"type_id", type}}}};
  };
  const auto text = [&](const char* name, int type) {
    Document steps = Document::array();
    for (const int32_t id : parts.prefix) steps.push_back(token(id, type));
    steps.push_back({{"Sequence", {{"id", name}, {"type_id", type}}}});
    for (const int32_t id : parts.suffix) steps.push_back(token(id, type));
    return steps;
  };
  const Document single = text("A", 0);
  Document pair = single;
  for (const Document& step : text("B", 1)) pair.push_back(step);
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", used}};
}

Document added_tokens(const VocabSource& source) {
  std::vector<const AddedToken*> added;
  for (const AddedToken& t : source.parts.added) added.push_back(&t);
  std::sort(added.begin(), added.end(), [](const auto* a, const auto* b) { return a->id < b->id; });
  Document out = Document::array();
  for (const AddedToken* t : added)
    out.push_back({{"id", t->id},
                   {"content", t->content},
                   {"single_word", t->single_word},
                   {"lstrip", t->lstrip},
                   {"rstrip", t->rstrip},
                   {"normalized", t->normalized},
                   {"special", t->special}});
  return out;
}

// Every token by its spelling; the reason why that cannot be, or "".
std::string vocabulary(const VocabSource& source, Document& out) {
  std::unordered_map<int32_t, std::string> added;
  for (const AddedToken& t : source.parts.added) added[t.id] = t.content;
  out = Document::object();
  for (size_t i = 0; i < source.tokens.size(); ++i) {
    const auto found = added.find(static_cast<int32_t>(i));
    const std::string& spelling = found == added.end() ? source.tokens[i] : found->second;
    if (find_invalid_utf8(spelling) != std::string::npos)
      return fmt::format("token {} is not valid UTF-8", i);
    if (out.contains(spelling))
      return fmt::format("tokens {} and {} are spelled alike", out[spelling].dump(), i);
    out[spelling] = i;
  }
  return "";
}

Document bpe(Document vocab, Document merges) {
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", nullptr},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", false},
          {"byte_fallback", false},
          {"ignore_merges", false},
          {"vocab", std::move(vocab)},
          {"merges", std::move(merges)}};
}

std::string byte_bpe(const VocabSource& source, Document& document) {
  Document vocab;
  if (std::string reason = vocabulary(source, vocab); !reason.empty()) return reason;
  std::unordered_set<std::string> known;
  for (const auto& [piece, id] : source.vocab) known.insert(piece);
  Document merges = Document::array();
  for (const auto& [left, right] : source.merges)
    if (known.contains(left) && known.contains(right) && known.contains(left + right))
      merges.push_back(Document::array({left, right}));
  document["model"] = bpe(std::move(vocab), std::move(merges));
  document["model"]["ignore_merges"] = source.ignore_merges;
  document["normalizer"] = source.nfc ? Document{{"type", "NFC"}} : Document();
  document["pre_tokenizer"] = split_by(source.patterns);
  document["decoder"] = byte_level();
  return "";
}

struct Merge {
  float score;
  std::string_view left, right;
};

bool is_run_of_spaces(std::string_view piece) {
  while (piece.starts_with(kSpaceSymbol)) piece.remove_prefix(kSpaceSymbol.size());
  return piece.empty();
}

// SentencePiece merges any two neighbours whose concatenation is a piece, the one of the highest score first;
// here every such pair is written down in that order.
std::string merges_of(const ScoredVocab& vocab, std::vector<Merge>& merges) {
  std::unordered_set<std::string_view> known;
  uint64_t work = 0;
  for (size_t i = 0; i < vocab.pieces.size(); ++i) {
    const std::string_view piece = vocab.pieces[i];
    if (vocab.types[i] != Type::kNormal && vocab.types[i] != Type::kUnused) continue;
    work += uint64_t{piece.size()} * piece.size();
    if (vocab.types[i] == Type::kNormal) known.insert(piece);
  }
  if (work > uint64_t{1} << 30) return "its pieces are too long";
  std::vector<float> scores;
  for (size_t i = 0; i < vocab.pieces.size(); ++i) {
    const std::string_view piece = vocab.pieces[i];
    if (vocab.types[i] != Type::kNormal && vocab.types[i] != Type::kUnused) continue;
    if (piece.empty()) continue;
    const size_t before = merges.size();
    for (size_t at = char_length(piece, 0); at < piece.size(); at += char_length(piece, at))
      if (known.contains(piece.substr(0, at)) && known.contains(piece.substr(at)))
        merges.push_back({vocab.scores[i], piece.substr(0, at), piece.substr(at)});
    if (merges.size() == before) continue;
    if (vocab.types[i] == Type::kUnused) return fmt::format("piece {} is unused, yet merges lead to it", i);
    // Runs of spaces share one score (LLaMA): of equals SentencePiece merges the leftmost, so a run grows
    // from its beginning. The order below says the same: the longer left part first.
    if (!is_run_of_spaces(piece)) scores.push_back(vocab.scores[i]);
  }
  std::sort(scores.begin(), scores.end());
  if (const auto same = std::adjacent_find(scores.begin(), scores.end()); same != scores.end())
    return fmt::format("two pieces have the same score {}", *same);
  std::stable_sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) {
    return a.score != b.score ? a.score > b.score : a.left.size() > b.left.size();
  });
  return "";
}

std::string scored_bpe(const VocabSource& source, Document& document) {
  const ScoredVocab& vocab = source.scored;
  const SentencePieceRules& rules = vocab.rules;
  if (vocab.unigram) return "a unigram vocabulary is not written here";
  if (!rules.charsmap.empty() || rules.remove_extra_whitespaces || rules.treat_whitespace_as_suffix ||
      !rules.escape_whitespaces)
    return "its normalization is not written here";
  Document pieces;
  if (std::string reason = vocabulary(source, pieces); !reason.empty()) return reason;
  std::vector<Merge> merges;
  if (std::string reason = merges_of(vocab, merges); !reason.empty()) return reason;
  Document pairs = Document::array();
  for (const Merge& m : merges) pairs.push_back(Document::array({m.left, m.right}));
  const std::string space(kSpaceSymbol);
  document["model"] = bpe(std::move(pieces), std::move(pairs));
  document["model"]["fuse_unk"] = true;
  document["model"]["byte_fallback"] = vocab.byte_fallback;
  const auto unknown = std::find(vocab.types.begin(), vocab.types.end(), Type::kUnknown);
  if (unknown != vocab.types.end())
    document["model"]["unk_token"] = spelled(source, static_cast<int32_t>(unknown - vocab.types.begin()));
  Document normal = Document::array(), decode = Document::array();
  if (rules.add_dummy_prefix) normal.push_back({{"type", "Prepend"}, {"prepend", space}});
  normal.push_back({{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", space}});
  decode.push_back({{"type", "Replace"}, {"pattern", {{"String", space}}}, {"content", " "}});
  decode.push_back({{"type", "ByteFallback"}});
  decode.push_back({{"type", "Fuse"}});
  if (rules.add_dummy_prefix)
    decode.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  document["normalizer"] = {{"type", "Sequence"}, {"normalizers", normal}};
  document["pre_tokenizer"] = nullptr;
  document["decoder"] = {{"type", "Sequence"}, {"decoders", decode}};
  return "";
}

}  // namespace

std::string spelled(const VocabSource& source, int32_t id) {
  for (const AddedToken& t : source.parts.added)
    if (t.id == id) return t.content;
  return replace_invalid_utf8(source.tokens.at(static_cast<size_t>(id)));
}

std::string tokenizer_json(const VocabSource& source, std::string& json) {
  Document document = {{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}};
  std::string reason;
  switch (source.kind) {
    case VocabSource::Kind::kByteBpe:
      reason = byte_bpe(source, document);
      break;
    case VocabSource::Kind::kScored:
      reason = scored_bpe(source, document);
      break;
    case VocabSource::Kind::kWordPiece:
      reason = "a WordPiece vocabulary is not written here";
      break;
  }
  if (!reason.empty()) return reason;
  document["added_tokens"] = added_tokens(source);
  document["post_processor"] = around(source);
  json = document.dump() + "\n";
  return "";
}

}  // namespace nibble::text
