#include "text/pretokenize.h"

#include <algorithm>

#include "base/error.h"
#include "base/json.h"
#include "text/normalize.h"
#include "text/regex.h"
#include "text/unicode_class.h"

namespace nibble::text {
namespace {

struct Cut {
  size_t begin, end;
  bool match;
};

// The behaviours that look at neighbours, as the `tokenizers` package defines them.
void merge_cuts(std::vector<Cut>& cuts, SplitBehavior behavior) {
  std::vector<Cut> out;
  const bool backward = behavior == SplitBehavior::kMergedWithNext;
  if (backward) std::reverse(cuts.begin(), cuts.end());
  bool previous = false;
  for (const Cut& cut : cuts) {
    const bool joins =
        behavior == SplitBehavior::kContiguous ? cut.match == previous : cut.match && !previous;
    if (joins && !out.empty()) {
      (backward ? out.back().begin : out.back().end) = backward ? cut.begin : cut.end;
    } else {
      out.push_back(cut);
    }
    previous = cut.match;
  }
  if (backward) std::reverse(out.begin(), out.end());
  cuts.swap(out);
}

// Splits at the matches that next(from, begin, end) finds.
template <class Next>
void split_at(const Piece& piece, SplitBehavior behavior, bool invert, Sink words, Next&& next) {
  const size_t size = piece.text.size();
  std::vector<Cut> cuts;
  const bool streaming = behavior == SplitBehavior::kIsolated || behavior == SplitBehavior::kRemoved;
  const auto give = [&](size_t begin, size_t end, bool match) {
    if (begin == end) return;
    if (!streaming) {
      cuts.push_back({begin, end, match != invert});
    } else if (behavior == SplitBehavior::kIsolated || match == invert) {
      words(piece.part(begin, end));
    }
  };
  size_t done = 0, begin = 0, end = 0;
  while (done < size && next(done, begin, end)) {
    give(done, begin, false);
    give(begin, end, true);
    done = end;
  }
  give(done, size, false);
  if (streaming) return;
  merge_cuts(cuts, behavior);
  for (const Cut& cut : cuts) words(piece.part(cut.begin, cut.end));
}

class RegexSplit : public PreTokenizer {
 public:
  RegexSplit(Regex regex, SplitBehavior behavior, bool invert)
      : regex_(std::move(regex)), behavior_(behavior), invert_(invert) {}
  void split(Arena&, const Piece& piece, Sink words) const override {
    split_at(piece, behavior_, invert_, words, [&](size_t from, size_t& begin, size_t& end) {
      return regex_.find(piece.text, from, begin, end);
    });
  }

 private:
  Regex regex_;
  SplitBehavior behavior_;
  bool invert_;
};

// Every character of a class is a match.
class CharacterSplit : public PreTokenizer {
 public:
  CharacterSplit(bool (*member)(char32_t), SplitBehavior behavior) : member_(member), behavior_(behavior) {}
  void split(Arena&, const Piece& piece, Sink words) const override {
    split_at(piece, behavior_, false, words, [&](size_t from, size_t& begin, size_t& end) {
      size_t length = 0;
      for (begin = from; begin < piece.text.size(); begin += length) {
        if (!member_(char_at(piece.text, begin, length))) continue;
        end = begin + length;
        return true;
      }
      return false;
    });
  }

 private:
  bool (*member_)(char32_t);
  SplitBehavior behavior_;
};

class ByteLevel : public PreTokenizer {
 public:
  ByteLevel(bool add_prefix_space, bool use_regex, const std::string& where)
      : add_prefix_space_(add_prefix_space) {
    if (use_regex)
      split_ = std::make_unique<RegexSplit>(Regex(kGpt2Pattern, where), SplitBehavior::kIsolated, false);
  }
  void split(Arena& arena, const Piece& piece, Sink words) const override {
    if (piece.text.empty()) return;
    Piece p = piece;
    if (add_prefix_space_ && piece.text.front() != ' ') {
      Rewriter out(arena, piece);
      out.put(" ", 0, 0);
      out.keep(0, piece.text.size());
      p = out.done();
    }
    if (split_) return split_->split(arena, p, words);
    words(p);
  }

 private:
  bool add_prefix_space_;
  std::unique_ptr<PreTokenizer> split_;
};

class Metaspace : public PreTokenizer {
 public:
  enum class Prepend { kAlways, kFirst, kNever };
  Metaspace(std::string replacement, Prepend prepend, bool split)
      : replacement_(std::move(replacement)), prepend_(prepend), split_(split) {}
  void split(Arena& arena, const Piece& piece, Sink words) const override {
    const std::string_view text = piece.text;
    if (text.empty()) return;
    Rewriter out(arena, piece);
    const bool first =
        prepend_ == Prepend::kAlways || (prepend_ == Prepend::kFirst && piece.origin(0, 0).begin == 0);
    if (first && !text.starts_with(' ') && !text.starts_with(replacement_)) out.put(replacement_, 0, 0);
    for (size_t at = 0; at < text.size();) {
      const size_t blank = std::min(text.find(' ', at), text.size());
      out.keep(at, blank);
      if (blank < text.size()) out.put(replacement_, blank, blank + 1);
      at = blank + 1;
    }
    const Piece whole = out.done();
    if (!split_) return words(whole);
    split_at(whole, SplitBehavior::kMergedWithNext, false, words,
             [&](size_t from, size_t& begin, size_t& end) {
               begin = whole.text.find(replacement_, from);
               end = begin + replacement_.size();
               return begin != std::string_view::npos;
             });
  }

 private:
  std::string replacement_;
  Prepend prepend_;
  bool split_;
};

class PreTokenizers : public PreTokenizer {
 public:
  explicit PreTokenizers(std::vector<std::unique_ptr<PreTokenizer>> steps) : steps_(std::move(steps)) {}
  void split(Arena& arena, const Piece& piece, Sink words) const override { run(0, arena, piece, words); }

 private:
  void run(size_t step, Arena& arena, const Piece& piece, Sink words) const {
    if (step == steps_.size()) return words(piece);
    if (step + 1 == steps_.size()) return steps_[step]->split(arena, piece, words);
    const auto next = [&](const Piece& part) { run(step + 1, arena, part, words); };
    steps_[step]->split(arena, piece, next);
  }
  std::vector<std::unique_ptr<PreTokenizer>> steps_;
};

SplitBehavior behavior_of(const Json& spec, const char* otherwise, const std::string& where) {
  const auto name = json_get<std::string>(spec, "behavior", otherwise, where);
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  fail(where, "the split behavior \"{}\" is not known", name);
}

std::unique_ptr<PreTokenizer> make_pre_tokenizer(const Json& spec, const std::string& where, int depth) {
  if (spec.is_null()) return nullptr;
  require(depth < 16, where, "the pre-tokenizers are nested too deeply");
  const auto type = json_get<std::string>(spec, "type", where);
  if (type == "ByteLevel") {
    return std::make_unique<ByteLevel>(json_get<bool>(spec, "add_prefix_space", true, where),
                                       json_get<bool>(spec, "use_regex", true, where), where);
  }
  if (type == "Split") {
    require(spec.contains("pattern") && spec["pattern"].is_object(), where,
            "the Split pre-tokenizer has no pattern");
    const Json& pattern = spec["pattern"];
    const std::string source = pattern.contains("Regex")
                                   ? json_get<std::string>(pattern, "Regex", where)
                                   : regex_escape(json_get<std::string>(pattern, "String", where));
    return std::make_unique<RegexSplit>(Regex(source, where), behavior_of(spec, "Isolated", where),
                                        json_get<bool>(spec, "invert", false, where));
  }
  if (type == "Digits") {
    return std::make_unique<CharacterSplit>(
        is_numeric, json_get<bool>(spec, "individual_digits", false, where) ? SplitBehavior::kIsolated
                                                                            : SplitBehavior::kContiguous);
  }
  if (type == "Whitespace") {
    // \w+|[^\w\s]+ with the \w of Rust, which has the joiners.
    return std::make_unique<RegexSplit>(Regex(R"([\w\p{Join_Control}]+|[^\w\s\p{Join_Control}]+)", where),
                                        SplitBehavior::kRemoved, true);
  }
  if (type == "WhitespaceSplit")
    return std::make_unique<CharacterSplit>(is_white_space, SplitBehavior::kRemoved);
  if (type == "Punctuation") {
    return std::make_unique<CharacterSplit>(is_punctuation, behavior_of(spec, "Isolated", where));
  }
  if (type == "BertPreTokenizer") {
    std::vector<std::unique_ptr<PreTokenizer>> steps;
    steps.push_back(std::make_unique<CharacterSplit>(is_white_space, SplitBehavior::kRemoved));
    steps.push_back(std::make_unique<CharacterSplit>(is_punctuation, SplitBehavior::kIsolated));
    return std::make_unique<PreTokenizers>(std::move(steps));
  }
  if (type == "CharDelimiterSplit") {
    return std::make_unique<RegexSplit>(
        Regex(regex_escape(json_get<std::string>(spec, "delimiter", where)), where), SplitBehavior::kRemoved,
        false);
  }
  if (type == "Metaspace") {
    const bool old = json_get<bool>(spec, "add_prefix_space", true, where);
    const auto scheme = json_get<std::string>(spec, "prepend_scheme", old ? "always" : "never", where);
    require(scheme == "always" || scheme == "first" || scheme == "never", where,
            "the prepend_scheme \"{}\" is not known; always, first and never are", scheme);
    const auto replacement = json_get<std::string>(spec, "replacement", std::string(kSpaceSymbol), where);
    require(!replacement.empty(), where, "the Metaspace pre-tokenizer replaces a space by nothing");
    return std::make_unique<Metaspace>(replacement,
                                       scheme == "always"  ? Metaspace::Prepend::kAlways
                                       : scheme == "first" ? Metaspace::Prepend::kFirst
                                                           : Metaspace::Prepend::kNever,
                                       json_get<bool>(spec, "split", true, where));
  }
  if (type == "Sequence") {
    require(spec.contains("pretokenizers") && spec["pretokenizers"].is_array(), where,
            "the Sequence pre-tokenizer has no list \"pretokenizers\"");
    std::vector<std::unique_ptr<PreTokenizer>> steps;
    for (const Json& step : spec["pretokenizers"])
      if (auto made = make_pre_tokenizer(step, where, depth + 1)) steps.push_back(std::move(made));
    return std::make_unique<PreTokenizers>(std::move(steps));
  }
  fail(where, "the pre-tokenizer \"{}\" is not known", type);
}

}  // namespace

std::unique_ptr<PreTokenizer> make_pre_tokenizer(const Json& spec, const std::string& where) {
  return make_pre_tokenizer(spec, where, 0);
}

std::unique_ptr<PreTokenizer> make_regex_splits(const std::vector<std::string>& patterns,
                                                const std::string& where) {
  std::vector<std::unique_ptr<PreTokenizer>> steps;
  for (const std::string& pattern : patterns)
    steps.push_back(std::make_unique<RegexSplit>(Regex(pattern, where), SplitBehavior::kIsolated, false));
  return std::make_unique<PreTokenizers>(std::move(steps));
}

bool has_byte_level(const Json& spec) {
  if (!spec.is_object()) return false;
  if (spec.contains("type") && spec["type"] == "ByteLevel") return true;
  if (spec.contains("pretokenizers") && spec["pretokenizers"].is_array())
    return std::any_of(spec["pretokenizers"].begin(), spec["pretokenizers"].end(), has_byte_level);
  return false;
}

}  // namespace nibble::text
