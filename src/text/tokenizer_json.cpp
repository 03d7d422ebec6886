// tokenizer.json of the `tokenizers` package: its parts one by one into a Pipeline.
#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "text/bpe.h"
#include "text/loaders.h"
#include "text/unigram.h"
#include "text/vocab_json.h"
#include "text/wordpiece.h"

namespace nibble::text {
namespace {

const Json& member(const Json& object, const char* key) {
  static const Json kNull;
  return object.is_object() && object.contains(key) ? object[key] : kNull;
}

std::vector<AddedToken> read_added(const Json& list, const std::string& where) {
  std::vector<AddedToken> added;
  if (list.is_null()) return added;
  require(list.is_array(), where, "\"added_tokens\" should be a list");
  for (const Json& entry : list) {
    AddedToken token;
    const auto id = json_get<int64_t>(entry, "id", where);
    token.content = json_get<std::string>(entry, "content", where);
    require(id >= 0 && id < Vocab::kMaxId, where,
            "the added token \"{}\" has id {}; ids from 0 to {} are possible", token.content, id,
            Vocab::kMaxId - 1);
    token.id = static_cast<int32_t>(id);
    token.special = json_get<bool>(entry, "special", false, where);
    token.single_word = json_get<bool>(entry, "single_word", false, where);
    token.lstrip = json_get<bool>(entry, "lstrip", false, where);
    token.rstrip = json_get<bool>(entry, "rstrip", false, where);
    token.normalized = json_get<bool>(entry, "normalized", !token.special, where);
    added.push_back(std::move(token));
  }
  return added;
}

// The special ids of a template, cut at the texts: before the first, between, behind the last. *last_type:
// the token type of the last text.
std::vector<std::vector<int32_t>> read_template(const Json& spec, const char* which, const std::string& where,
                                                int32_t* last_type) {
  const Json& table = member(spec, "special_tokens");
  std::vector<std::vector<int32_t>> parts(1);
  for (const Json& step : member(spec, which)) {
    if (step.is_object() && step.contains("Sequence")) {
      parts.emplace_back();
      if (last_type != nullptr) {
        const auto type = json_get<int64_t>(step["Sequence"], "type_id", 0, where);
        require(type >= 0 && type < 256, where, "the template gives a text the type {}", type);
        *last_type = static_cast<int32_t>(type);
      }
      continue;
    }
    const auto name = json_get<std::string>(member(step, "SpecialToken"), "id", where);
    const Json& entry = member(table, name.c_str());
    require(entry.is_object(), where, "the template's special token \"{}\" is not in its table", name);
    for (const int64_t id : json_get<std::vector<int64_t>>(entry, "ids", where)) {
      require(id >= 0 && id < Vocab::kMaxId, where, "the template's special token \"{}\" has id {}", name,
              id);
      parts.back().push_back(static_cast<int32_t>(id));
    }
  }
  return parts;
}

// The ids that a post-processor puts before and behind one text, and around two.
void read_post_processor(const Json& spec, PipelineParts& parts, const std::string& where, int depth = 0) {
  if (spec.is_null()) return;
  require(depth < 16, where, "the post-processors are nested too deeply");
  const auto type = json_get<std::string>(spec, "type", where);
  if (type == "ByteLevel") return;  // it only trims offsets
  if (type == "Sequence") {
    for (const Json& step : member(spec, "processors")) read_post_processor(step, parts, where, depth + 1);
    return;
  }
  if (type == "RobertaProcessing" || type == "BertProcessing") {
    const auto id_of = [&](const char* key) {
      const Json& pair = member(spec, key);
      require(pair.is_array() && pair.size() == 2 && pair[1].is_number_integer(), where,
              "the post-processor's \"{}\" should be a token and its id", key);
      const auto id = pair[1].get<int64_t>();
      require(id >= 0 && id < Vocab::kMaxId, where, "the post-processor's \"{}\" has id {}", key, id);
      return static_cast<int32_t>(id);
    };
    const int32_t cls = id_of("cls"), sep = id_of("sep");
    parts.prefix.insert(parts.prefix.begin(), cls);
    parts.suffix.push_back(sep);
    const bool roberta = type == "RobertaProcessing";  // two separators, one token type
    parts.pair = PairTemplate{{cls}, std::vector<int32_t>(roberta ? 2 : 1, sep), {sep}, roberta ? 0 : 1};
    return;
  }
  require(type == "TemplateProcessing", where, "the post-processor \"{}\" is not known", type);
  const std::vector<std::vector<int32_t>> single = read_template(spec, "single", where, nullptr);
  const std::vector<int32_t>& prefix = single.front();
  std::vector<int32_t> suffix;
  for (size_t i = 1; i < single.size(); ++i) suffix.insert(suffix.end(), single[i].begin(), single[i].end());
  int32_t type_of_last = 0;
  if (spec.contains("pair") && spec["pair"].is_array())
    if (const auto both = read_template(spec, "pair", where, &type_of_last); both.size() == 3)
      parts.pair = PairTemplate{both[0], both[1], both[2], type_of_last};
  parts.prefix.insert(parts.prefix.begin(), prefix.begin(), prefix.end());
  parts.suffix.insert(parts.suffix.end(), suffix.begin(), suffix.end());
}

using Names = std::vector<std::pair<std::string, int32_t>>;

int32_t find_name(const Names& vocab, const std::string& name) {
  const auto at =
      std::find_if(vocab.begin(), vocab.end(), [&](const auto& entry) { return entry.first == name; });
  return at == vocab.end() ? -1 : at->second;
}

int32_t read_unknown(const Json& model, const char* key, const Names& vocab, const std::string& where) {
  const auto name = json_get<std::string>(model, key, "", where);
  if (name.empty()) return -1;
  const int32_t id = find_name(vocab, name);
  require(id >= 0, where, "the unknown token \"{}\" is not in the vocabulary", name);
  return id;
}

std::unique_ptr<Model> make_bpe(TokenizerJson& document, const Json& model, bool bytes, PipelineParts& parts,
                                const std::string& where) {
  BpeOptions options;
  options.ignore_merges = json_get<bool>(model, "ignore_merges", false, where);
  options.byte_fallback = json_get<bool>(model, "byte_fallback", false, where);
  options.fuse_unknown = json_get<bool>(model, "fuse_unk", false, where);
  options.unknown = read_unknown(model, "unk_token", document.vocab, where);
  options.continuing_prefix = json_get<std::string>(model, "continuing_subword_prefix", "", where);
  options.end_of_word_suffix = json_get<std::string>(model, "end_of_word_suffix", "", where);
  if (options.unknown >= 0) parts.unk = options.unknown;
  if (bytes) {
    require(options.continuing_prefix.empty() && options.end_of_word_suffix.empty(), where,
            "a byte-level model with a prefix or suffix on its pieces is not known");
    return make_byte_bpe(document.vocab, document.merges, options.ignore_merges, false, options.unknown,
                         where);
  }
  auto lookup = std::make_shared<Vocab>();
  lookup->build(document.vocab, where);
  return std::make_unique<Bpe>(lookup, document.merges, options, where);
}

std::unique_ptr<Model> make_unigram(TokenizerJson& document, const Json& model, PipelineParts& parts,
                                    const std::string& where) {
  require(document.scores.size() == document.vocab.size(), where,
          "the Unigram vocabulary should be a list of pieces with scores");
  const auto unknown = json_get<int64_t>(model, "unk_id", -1, where);
  require(unknown < static_cast<int64_t>(document.vocab.size()), where, "unk_id {} is outside the vocabulary",
          unknown);
  double lowest = 0;
  for (const double score : document.scores) {
    require(std::isfinite(score), where, "a score of the vocabulary is not finite");
    lowest = std::min(lowest, score);
  }
  UnigramOptions options;
  options.unknown = static_cast<int32_t>(std::max<int64_t>(unknown, -1));
  options.byte_fallback = json_get<bool>(model, "byte_fallback", false, where);
  if (options.unknown >= 0) parts.unk = options.unknown;
  auto lookup = std::make_shared<Vocab>();
  lookup->build(document.vocab, where);
  std::vector<UnigramKind> kinds(document.vocab.size(), UnigramKind::kNormal);
  return std::make_unique<Unigram>(lookup, document.scores, std::move(kinds), lowest, 0.0, options, where);
}

std::unique_ptr<Model> make_wordpiece(TokenizerJson& document, const Json& model, bool whole_words,
                                      PipelineParts& parts, const std::string& where) {
  WordPiece::Options options;
  options.whole_words = whole_words;
  options.unknown = read_unknown(model, "unk_token", document.vocab, where);
  options.prefix = json_get<std::string>(model, "continuing_subword_prefix", "##", where);
  options.max_characters = static_cast<size_t>(
      std::max<int64_t>(json_get<int64_t>(model, "max_input_chars_per_word", 100, where), 0));
  if (options.unknown >= 0) parts.unk = options.unknown;
  auto lookup = std::make_shared<Vocab>();
  lookup->build(document.vocab, where);
  return std::make_unique<WordPiece>(lookup, options);
}

}  // namespace

std::shared_ptr<const Tokenizer> parse_tokenizer_json(std::string_view text, const SideFiles& side,
                                                      const std::string& where) {
  TokenizerJson document = parse_tokenizer_document(text, where);
  const Json& root = document.rest;
  require(root.is_object() && root.contains("model") && root["model"].is_object(), where,
          "has no object \"model\": is it a tokenizer.json?");
  const Json& model = root["model"];
  require(!document.vocab.empty(), where, "the model's vocabulary is empty");

  PipelineParts parts;
  parts.normalizer = make_normalizer(member(root, "normalizer"), where);
  parts.pre_tokenizer = make_pre_tokenizer(member(root, "pre_tokenizer"), where);
  parts.decoder = make_decoder(member(root, "decoder"), where);
  parts.added = read_added(member(root, "added_tokens"), where);
  read_post_processor(member(root, "post_processor"), parts, where);

  // Old files leave the type out; the `tokenizers` package then goes by what is there.
  auto type = json_get<std::string>(model, "type", "", where);
  if (type.empty())
    type = !document.merges.empty() ? "BPE" : !document.scores.empty() ? "Unigram" : "WordPiece";
  const bool bytes = has_byte_level(member(root, "pre_tokenizer"));
  std::string kind;
  if (type == "BPE") {
    parts.model = make_bpe(document, model, bytes, parts, where);
    kind = bytes ? "byte-level BPE" : "BPE";
  } else if (type == "Unigram") {
    parts.model = make_unigram(document, model, parts, where);
    kind = "unigram";
  } else if (type == "WordPiece" || type == "WordLevel") {
    parts.model = make_wordpiece(document, model, type == "WordLevel", parts, where);
    kind = type == "WordLevel" ? "word-level" : "WordPiece";
  } else {
    fail(where, "the model type \"{}\" is not known; BPE, Unigram, WordPiece and WordLevel are", type);
  }
  require(!bytes || type == "BPE", where, "a byte-level pre-tokenizer with a {} model is not known", type);

  parts.spelling = std::move(document.vocab);
  parts.kind = kind;
  parts.source = "tokenizer.json";
  apply_side_files(parts, side, false, false, where);
  // Where no configuration names them, the post-processor does.
  if (!side.bos.said && !parts.bos && parts.prefix.size() == 1) parts.bos = parts.prefix[0];
  if (!side.eos.said && !parts.eos && parts.suffix.size() == 1) parts.eos = parts.suffix[0];
  return std::make_shared<Pipeline>(std::move(parts), where);
}

std::shared_ptr<const Tokenizer> load_tokenizer_json(const std::string& path, const SideFiles& side) {
  return parse_tokenizer_json(read_file(path, uint64_t{1} << 30), side, path);
}

}  // namespace nibble::text
