#include "text/normalize.h"

#include <utf8proc.h>

#include <optional>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"
#include "text/base64.h"
#include "text/regex.h"
#include "text/unicode_class.h"

namespace nibble::text {
namespace {

// Rewrites character by character: each(code point, bytes) gives nullopt to keep it or what stands in its
// place.
template <class Each>
Piece map_characters(Arena& arena, const Piece& piece, Each&& each) {
  std::optional<Rewriter> out;
  size_t length = 0;
  for (size_t i = 0; i < piece.text.size(); i += length) {
    const char32_t c = char_at(piece.text, i, length);
    const std::optional<std::string> now = each(c);
    if (!now) {
      if (out) out->keep(i, i + length);
      continue;
    }
    if (!out) {
      out.emplace(arena, piece);
      out->keep(0, i);
    }
    out->put(*now, i, i + length);
  }
  return out ? out->done() : piece;
}

std::string utf8(char32_t c) {
  std::string s;
  append_utf8(s, c);
  return s;
}

// Full lower case of one character: U+0130 is the only one whose mapping is longer than the simple one.
std::optional<std::string> lowered(char32_t c) {
  if (c < 0x80)
    return c >= 'A' && c <= 'Z' ? std::optional(std::string(1, static_cast<char>(c + 32))) : std::nullopt;
  if (c == 0x130) return "i\xCC\x87";
  const auto low = static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
  return low == c ? std::nullopt : std::optional(utf8(low));
}

class Unicode : public Normalizer {
 public:
  explicit Unicode(UnicodeForm form) : form_(form) {}
  Piece apply(Arena& arena, const Piece& piece) const override {
    return to_unicode_form(form_, arena, piece);
  }

 private:
  UnicodeForm form_;
};

class Lowercase : public Normalizer {
 public:
  Piece apply(Arena& arena, const Piece& piece) const override {
    return map_characters(arena, piece, lowered);
  }
};

class StripAccents : public Normalizer {
 public:
  Piece apply(Arena& arena, const Piece& piece) const override {
    return map_characters(arena, piece, [](char32_t c) {
      return c >= 0x80 && is_mark(c) ? std::optional(std::string()) : std::nullopt;
    });
  }
};

class Replace : public Normalizer {
 public:
  Replace(std::string pattern, bool regex, std::string content, const std::string& where)
      : text_(std::move(pattern)), content_(std::move(content)) {
    if (regex) regex_.emplace(text_, where);
  }
  Piece apply(Arena& arena, const Piece& piece) const override {
    size_t begin = 0, end = 0, done = 0;
    if (!next(piece.text, 0, begin, end)) return piece;
    Rewriter out(arena, piece);
    do {
      out.keep(done, begin);
      out.put(content_, begin, end);
      done = end;
    } while (next(piece.text, done, begin, end));
    out.keep(done, piece.text.size());
    return out.done();
  }

 private:
  bool next(std::string_view text, size_t from, size_t& begin, size_t& end) const {
    if (regex_) return regex_->find(text, from, begin, end);
    if (text_.empty()) return false;
    begin = text.find(text_, from);
    end = begin + text_.size();
    return begin != std::string_view::npos;
  }
  std::string text_, content_;
  std::optional<Regex> regex_;
};

class Prepend : public Normalizer {
 public:
  explicit Prepend(std::string text) : text_(std::move(text)) {}
  Piece apply(Arena& arena, const Piece& piece) const override {
    if (piece.text.empty() || text_.empty()) return piece;
    Rewriter out(arena, piece);
    out.put(text_, 0, 0);
    out.keep(0, piece.text.size());
    return out.done();
  }

 private:
  std::string text_;
};

class Strip : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  Piece apply(Arena&, const Piece& piece) const override {
    size_t first = std::string_view::npos, last = 0, length = 0;
    for (size_t i = 0; i < piece.text.size(); i += length) {
      if (is_white_space(char_at(piece.text, i, length))) continue;
      if (first == std::string_view::npos) first = i;
      last = i + length;
    }
    if (first == std::string_view::npos) return left_ || right_ ? piece.part(0, 0) : piece;
    return piece.part(left_ ? first : 0, right_ ? last : piece.text.size());
  }

 private:
  bool left_, right_;
};

// BERT's basic tokenization before words are split: clean, space out ideographs, strip accents, lower-case.
class Bert : public Normalizer {
 public:
  Bert(bool clean, bool chinese, bool accents, bool lower)
      : clean_(clean), chinese_(chinese), accents_(accents), lower_(lower) {}
  Piece apply(Arena& arena, const Piece& piece) const override {
    Piece p = piece;
    if (clean_) {
      p = map_characters(arena, p, [](char32_t c) -> std::optional<std::string> {
        if (c == ' ') return std::nullopt;
        if (c == '\t' || c == '\n' || c == '\r') return " ";
        if (c == 0 || c == 0xFFFD || is_other(c)) return "";
        if (is_white_space(c)) return " ";
        return std::nullopt;
      });
    }
    if (chinese_) {
      p = map_characters(arena, p, [](char32_t c) {
        return is_ideograph(c) ? std::optional(" " + utf8(c) + " ") : std::nullopt;
      });
    }
    if (accents_) {
      p = to_unicode_form(UnicodeForm::kNFD, arena, p);
      p = map_characters(arena, p, [](char32_t c) {
        return c >= 0x80 && is_nonspacing_mark(c) ? std::optional(std::string()) : std::nullopt;
      });
    }
    return lower_ ? map_characters(arena, p, lowered) : p;
  }

 private:
  bool clean_, chinese_, accents_, lower_;
};

// The rules that SentencePiece's nmt variants add.
class Nmt : public Normalizer {
 public:
  Piece apply(Arena& arena, const Piece& piece) const override {
    return map_characters(arena, piece, [](char32_t c) -> std::optional<std::string> {
      if ((c >= 0x01 && c <= 0x08) || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F || c == 0x8F ||
          c == 0x9F)
        return "";
      if (c == 0x09 || c == 0x0A || c == 0x0C || c == 0x0D || c == 0x1680 || (c >= 0x200B && c <= 0x200F) ||
          c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xFEFF || c == 0xFFFD)
        return " ";
      return std::nullopt;
    });
  }
};

// SentencePiece's character map as the `tokenizers` package applies it: to a whole grapheme of fewer than six
// bytes if its shortest key matches, and else to each character.
class Precompiled : public Normalizer {
 public:
  explicit Precompiled(Charsmap map) : map_(std::move(map)) {}
  Piece apply(Arena& arena, const Piece& piece) const override {
    const std::string_view text = piece.text;
    Rewriter out(arena, piece);
    for (size_t begin = 0; begin < text.size();) {
      size_t length = 0, end = begin;
      utf8proc_int32_t state = 0;
      for (char32_t previous = char_at(text, begin, length);;) {
        end += length;
        if (end >= text.size()) break;
        const char32_t c = char_at(text, end, length);
        if (utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(previous),
                                             static_cast<utf8proc_int32_t>(c), &state))
          break;
        previous = c;
      }
      std::string_view now;
      if (end - begin < 6 && map_.match(text.substr(begin, end - begin), false, now) > 0) {
        out.put(now, begin, end);
      } else {
        for (size_t i = begin; i < end; i += length) {
          length = char_length(text, i);
          if (map_.match(text.substr(i, length), false, now) > 0) {
            out.put(now, i, i + length);
          } else {
            out.keep(i, i + length);
          }
        }
      }
      begin = end;
    }
    return out.done();
  }

 private:
  Charsmap map_;
};

class Normalizers : public Normalizer {
 public:
  explicit Normalizers(std::vector<std::unique_ptr<Normalizer>> steps) : steps_(std::move(steps)) {}
  Piece apply(Arena& arena, const Piece& piece) const override {
    Piece p = piece;
    for (const auto& step : steps_) p = step->apply(arena, p);
    return p;
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> steps_;
};

std::unique_ptr<Normalizer> make_normalizer(const Json& spec, const std::string& where, int depth) {
  if (spec.is_null()) return nullptr;
  require(depth < 16, where, "the normalizers are nested too deeply");
  const auto type = json_get<std::string>(spec, "type", where);
  if (type == "NFC") return std::make_unique<Unicode>(UnicodeForm::kNFC);
  if (type == "NFD") return std::make_unique<Unicode>(UnicodeForm::kNFD);
  if (type == "NFKC") return std::make_unique<Unicode>(UnicodeForm::kNFKC);
  if (type == "NFKD") return std::make_unique<Unicode>(UnicodeForm::kNFKD);
  if (type == "Lowercase") return std::make_unique<Lowercase>();
  if (type == "StripAccents") return std::make_unique<StripAccents>();
  if (type == "Nmt") return std::make_unique<Nmt>();
  if (type == "Prepend") return std::make_unique<Prepend>(json_get<std::string>(spec, "prepend", where));
  if (type == "Strip") {
    return std::make_unique<Strip>(json_get<bool>(spec, "strip_left", true, where),
                                   json_get<bool>(spec, "strip_right", true, where));
  }
  if (type == "Replace") {
    require(spec.contains("pattern") && spec["pattern"].is_object(), where,
            "the Replace normalizer has no pattern");
    const Json& pattern = spec["pattern"];
    const bool regex = pattern.contains("Regex");
    return std::make_unique<Replace>(json_get<std::string>(pattern, regex ? "Regex" : "String", where), regex,
                                     json_get<std::string>(spec, "content", where), where);
  }
  if (type == "BertNormalizer") {
    const bool lower = json_get<bool>(spec, "lowercase", true, where);
    return std::make_unique<Bert>(json_get<bool>(spec, "clean_text", true, where),
                                  json_get<bool>(spec, "handle_chinese_chars", true, where),
                                  json_get<bool>(spec, "strip_accents", lower, where), lower);
  }
  if (type == "Precompiled") {
    std::string blob;
    require(decode_base64(json_get<std::string>(spec, "precompiled_charsmap", where), blob), where,
            "\"precompiled_charsmap\" is no base64");
    return std::make_unique<Precompiled>(Charsmap(blob, where));
  }
  if (type == "Sequence") {
    require(spec.contains("normalizers") && spec["normalizers"].is_array(), where,
            "the Sequence normalizer has no list \"normalizers\"");
    std::vector<std::unique_ptr<Normalizer>> steps;
    for (const Json& step : spec["normalizers"])
      if (auto made = make_normalizer(step, where, depth + 1)) steps.push_back(std::move(made));
    return std::make_unique<Normalizers>(std::move(steps));
  }
  fail(where, "the normalizer \"{}\" is not known", type);
}

}  // namespace

std::unique_ptr<Normalizer> make_normalizer(const Json& spec, const std::string& where) {
  return make_normalizer(spec, where, 0);
}

}  // namespace nibble::text
