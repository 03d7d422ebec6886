#include "text/vocab_json.h"

#include <algorithm>
#include <optional>
#include <unordered_set>

#include "base/error.h"
#include "text/vocab.h"

namespace nibble::text {
namespace {

constexpr size_t kMaxDepth = 64;

class Events : public nlohmann::json_sax<Json> {
 public:
  Events(std::string_view text, const std::string& where, bool vocab_alone)
      : text_(text), where_(where), vocab_alone_(vocab_alone) {}

  bool null() override { return scalar(nullptr); }
  bool boolean(bool v) override { return scalar(v); }
  bool number_integer(number_integer_t v) override {
    return mode_ == Mode::kTree ? scalar(v) : number(static_cast<double>(v), v);
  }
  bool number_unsigned(number_unsigned_t v) override {
    if (mode_ == Mode::kTree) return scalar(v);
    return number(static_cast<double>(v), v > INT32_MAX ? INT32_MAX : static_cast<int64_t>(v));
  }
  bool number_float(number_float_t v, const string_t&) override {
    return mode_ == Mode::kTree ? scalar(v) : number(v, std::nullopt);
  }
  bool string(string_t& v) override {
    if (mode_ == Mode::kTree) return scalar(std::move(v));
    if (mode_ == Mode::kMerges && level_ == 1) {
      const size_t blank = v.find(' ');
      if (blank == std::string::npos || blank == 0 || blank + 1 == v.size() ||
          v.find(' ', blank + 1) != std::string::npos)
        ambiguous.push_back(out.merges.size());
      out.merges.emplace_back(v.substr(0, blank), blank == std::string::npos ? "" : v.substr(blank + 1));
      return true;
    }
    if (mode_ == Mode::kMerges && level_ == 2 && parts_ < 2) {
      (parts_ == 0 ? out.merges.emplace_back().first : out.merges.back().second) = std::move(v);
      ++parts_;
      return true;
    }
    if (mode_ == Mode::kUnigram && level_ == 2 && parts_ == 0) {
      out.vocab.emplace_back(std::move(v), static_cast<int32_t>(out.vocab.size()));
      parts_ = 1;
      return true;
    }
    return unexpected();
  }
  bool binary(binary_t&) override { return unexpected(); }
  bool start_object(std::size_t) override {
    if (mode_ != Mode::kTree) return unexpected();
    if ((vocab_alone_ && stack_.empty()) || (in_model() && key_ == "vocab")) {
      mode_ = Mode::kVocab;
      return true;
    }
    return open(Json::object());
  }
  bool key(string_t& v) override {
    key_ = std::move(v);
    return true;
  }
  bool end_object() override { return close(); }
  bool start_array(std::size_t) override {
    if (mode_ == Mode::kTree) {
      const bool merges = in_model() && key_ == "merges", unigram = in_model() && key_ == "vocab";
      if (!merges && !unigram) return open(Json::array());
      mode_ = merges ? Mode::kMerges : Mode::kUnigram;
      level_ = 1;
      return true;
    }
    if (mode_ == Mode::kVocab || level_ != 1) return unexpected();
    level_ = 2;
    parts_ = 0;
    return true;
  }
  bool end_array() override {
    if (mode_ == Mode::kTree) return close();
    if (level_ == 2) {
      require(parts_ == 2, where_, "entry {} of the model's {} should have two parts",
              mode_ == Mode::kMerges ? out.merges.size() : out.vocab.size(),
              mode_ == Mode::kMerges ? "merges" : "vocab");
      level_ = 1;
      return true;
    }
    mode_ = Mode::kTree;
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& e) override {
    const std::string_view before = text_.substr(0, std::min(position > 0 ? position - 1 : 0, text_.size()));
    const auto line = std::count(before.begin(), before.end(), '\n') + 1;
    const size_t column =
        before.size() - (before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1) + 1;
    std::string_view what = e.what();
    if (const size_t at = what.find("syntax error"); at != std::string_view::npos) what.remove_prefix(at);
    fail(where_, "is not valid JSON at line {}, column {}: {}", line, column, what);
  }

  TokenizerJson out;
  std::vector<size_t> ambiguous;  // merges whose line has no or several spaces: split at the first one

 private:
  enum class Mode { kTree, kVocab, kUnigram, kMerges };

  bool in_model() const { return stack_.size() == 2 && in_model_; }

  [[noreturn]] bool unexpected() const {
    if (mode_ == Mode::kVocab)
      fail(where_, "the vocabulary should map each piece to its id; \"{}\" maps to something else", key_);
    fail(where_, "the model's {} have an unexpected form at entry {}",
         mode_ == Mode::kMerges ? "merges" : "vocab",
         mode_ == Mode::kMerges ? out.merges.size() : out.vocab.size());
  }
  bool number(double v, std::optional<int64_t> whole) {
    if (mode_ == Mode::kVocab && whole) {
      require(*whole >= 0 && *whole < Vocab::kMaxId, where_,
              "the piece \"{}\" has id {}; ids from 0 to {} are possible", key_, *whole, Vocab::kMaxId - 1);
      out.vocab.emplace_back(std::move(key_), static_cast<int32_t>(*whole));
      return true;
    }
    if (mode_ == Mode::kUnigram && level_ == 2 && parts_ == 1) {
      out.scores.push_back(v);
      parts_ = 2;
      return true;
    }
    return unexpected();
  }
  Json* place(Json value) {
    if (stack_.empty()) return &(out.rest = std::move(value));
    Json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    return &(parent[key_] = std::move(value));
  }
  bool scalar(Json value) {
    if (mode_ != Mode::kTree) return unexpected();
    place(std::move(value));
    return true;
  }
  bool open(Json value) {
    require(stack_.size() < kMaxDepth, where_, "JSON is nested more than {} levels deep", kMaxDepth);
    if (stack_.size() == 1) in_model_ = key_ == "model" && value.is_object();
    stack_.push_back(place(std::move(value)));
    return true;
  }
  bool close() {
    if (mode_ == Mode::kVocab) {
      mode_ = Mode::kTree;
      return true;
    }
    stack_.pop_back();
    return true;
  }

  std::string_view text_;
  const std::string& where_;
  bool vocab_alone_;
  Mode mode_ = Mode::kTree;
  int level_ = 0, parts_ = 0;  // inside merges or a unigram vocabulary
  bool in_model_ = false;
  std::string key_;
  std::vector<Json*> stack_;
};

// Pieces that hold spaces themselves: the split that gives two pieces of the vocabulary is meant.
void resolve(const std::vector<size_t>& ambiguous, TokenizerJson& document, const std::string& where) {
  if (ambiguous.empty()) return;
  std::unordered_set<std::string_view> known;
  for (const auto& entry : document.vocab) known.insert(entry.first);
  for (const size_t i : ambiguous) {
    auto& [left, right] = document.merges[i];
    std::string line = left;
    line += ' ';
    line += right;
    bool found = false;
    for (size_t at = line.find(' '); at != std::string::npos && !found; at = line.find(' ', at + 1)) {
      left = line.substr(0, at);
      right = line.substr(at + 1);
      found = known.contains(left) && known.contains(right) && known.contains(left + right);
    }
    require(found, where, "merge {} should be two pieces of the vocabulary with a space between, got \"{}\"",
            i + 1, line.substr(0, 60));
  }
}

}  // namespace

TokenizerJson parse_tokenizer_document(std::string_view text, const std::string& where) {
  Events events(text, where, false);
  Json::sax_parse(text.begin(), text.end(), &events);
  resolve(events.ambiguous, events.out, where);
  return std::move(events.out);
}

std::vector<std::pair<std::string, int32_t>> parse_vocab_json(std::string_view text,
                                                              const std::string& where) {
  Events events(text, where, true);
  Json::sax_parse(text.begin(), text.end(), &events);
  require(events.out.rest.is_null(), where,
          "the vocabulary should be an object that maps each piece to its id");
  return std::move(events.out.vocab);
}

}  // namespace nibble::text
