// SentencePiece's normalization (normalizer.cc): character map, white space to ▁, dummy prefix.
#include <utility>

#include "text/normalize.h"

namespace nibble::text {
namespace {

class SentencePieceNormalizer : public Normalizer {
 public:
  explicit SentencePieceNormalizer(SentencePieceRules rules) : rules_(std::move(rules)) {}

  Piece apply(Arena& arena, const Piece& piece) const override {
    const std::string_view text = piece.text;
    const std::string_view space = rules_.escape_whitespaces ? kSpaceSymbol : std::string_view(" ");
    Rewriter out(arena, piece);
    size_t at = 0;
    std::string_view now;
    if (rules_.remove_extra_whitespaces) {
      while (at < text.size()) {
        const size_t used = next(text.substr(at), now);
        if (now != " ") break;
        at += used;
      }
    }
    if (at >= text.size()) return out.done();
    if (!rules_.treat_whitespace_as_suffix && rules_.add_dummy_prefix) out.put(space, at, at);
    bool after_space = rules_.remove_extra_whitespaces;
    while (at < text.size()) {
      const size_t used = next(text.substr(at), now);
      while (after_space && now.starts_with(' ')) now.remove_prefix(1);
      if (!now.empty()) {
        if (now.data() == text.data() + at && now.size() == used && now.find(' ') == std::string_view::npos) {
          out.keep(at, at + used);
        } else {
          for (size_t begin = 0; begin < now.size();) {
            const size_t blank = now.find(' ', begin);
            out.put(now.substr(begin, blank - begin), at, at + used);
            if (blank == std::string_view::npos) break;
            out.put(space, at, at + used);
            begin = blank + 1;
          }
        }
        after_space = now.ends_with(' ');
      }
      at += used;
      if (!rules_.remove_extra_whitespaces) after_space = false;
    }
    if (rules_.remove_extra_whitespaces)
      while (out.text().ends_with(space)) out.cut(out.text().size() - space.size());
    if (rules_.treat_whitespace_as_suffix && rules_.add_dummy_prefix)
      out.put(space, text.size(), text.size());
    return out.done();
  }

 private:
  // The longest entry of the map that `text` starts with, or its first character; returns the bytes it
  // covers.
  size_t next(std::string_view text, std::string_view& now) const {
    int32_t unused = 0;
    if (const size_t verbatim = rules_.verbatim.longest(text, unused); verbatim > 0) {
      now = text.substr(0, verbatim);
      return verbatim;
    }
    if (const size_t mapped = rules_.charsmap.match(text, true, now); mapped > 0) return mapped;
    now = text.substr(0, char_length(text, 0));
    return now.size();
  }

  SentencePieceRules rules_;
};

}  // namespace

std::unique_ptr<Normalizer> make_normalizer(SentencePieceRules rules) {
  return std::make_unique<SentencePieceNormalizer>(std::move(rules));
}

}  // namespace nibble::text
