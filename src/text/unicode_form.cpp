// NFC, NFD, NFKC and NFKD with alignment: the text is cut where no composition or reordering can reach
// across, each part is normalized by utf8proc, and a part that changed maps to its whole source range.
#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>

#include "base/error.h"
#include "text/normalize.h"

namespace nibble::text {
namespace {

// Characters of combining class 0 that may compose with the one before: NFC_Quick_Check=Maybe (Unicode 15),
// less the Hangul vowels and finals.
constexpr char32_t kComposesBackward[] = {
    0x09BE, 0x09D7, 0x0B3E, 0x0B56, 0x0B57,  0x0BBE,  0x0BD7,  0x0CC2,  0x0CD5,  0x0CD6,  0x0D3E,  0x0D57,
    0x0DCF, 0x0DDF, 0x102E, 0x1B35, 0x11127, 0x1133E, 0x11357, 0x114B0, 0x114BA, 0x114BD, 0x115AF, 0x11930};

struct Free {
  void operator()(utf8proc_uint8_t* p) const { std::free(p); }
};

utf8proc_option_t options_of(UnicodeForm form) {
  const bool compose = form == UnicodeForm::kNFC || form == UnicodeForm::kNFKC;
  const bool compatible = form == UnicodeForm::kNFKC || form == UnicodeForm::kNFKD;
  return static_cast<utf8proc_option_t>(UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                                        (compatible ? UTF8PROC_COMPAT : 0));
}

// Whether the character can interact with what stands before it.
bool joins_backward(char32_t c, bool compatible) {
  if (c < 0x300) return false;
  utf8proc_int32_t parts[32];
  int last_class = 0;
  const auto options =
      static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0));
  const auto n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), parts, std::size(parts), options,
                                         &last_class);
  const auto first = n > 0 ? static_cast<char32_t>(parts[0]) : c;
  if (utf8proc_get_property(static_cast<utf8proc_int32_t>(first))->combining_class != 0) return true;
  if ((first >= 0x1161 && first <= 0x1175) || (first >= 0x11A8 && first <= 0x11C2)) return true;
  return std::binary_search(std::begin(kComposesBackward), std::end(kComposesBackward), first);
}

}  // namespace

Piece to_unicode_form(UnicodeForm form, Arena& arena, const Piece& piece) {
  const std::string_view text = piece.text;
  // Below these code points nothing changes (U+00A0 is the first that NFKC maps, U+00C0 that NFD splits).
  const bool compose = form == UnicodeForm::kNFC;
  const char32_t safe = compose ? 0x300 : 0x80;
  size_t at = 0, length = 0;
  while (at < text.size() && char_at(text, at, length) < safe) at += length;
  if (at >= text.size()) return piece;

  const utf8proc_option_t options = options_of(form);
  const bool compatible = form == UnicodeForm::kNFKC || form == UnicodeForm::kNFKD;
  Rewriter out(arena, piece);
  for (size_t begin = 0; begin < text.size();) {
    // A part: one character and all that join it. Runs of safe characters are kept at once.
    size_t end = begin;
    while (end < text.size() && char_at(text, end, length) < safe) end += length;
    if (end > begin) {
      // The last one may be composed with what follows.
      if (end < text.size() && joins_backward(char_at(text, end, length), compatible)) {
        --end;
        while ((static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
      }
      if (end > begin) {
        out.keep(begin, end);
        begin = end;
        continue;
      }
    }
    char_at(text, begin, length);
    end = begin + length;
    while (end < text.size() && joins_backward(char_at(text, end, length), compatible)) end += length;
    utf8proc_uint8_t* raw = nullptr;
    const auto size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data() + begin),
                                   static_cast<utf8proc_ssize_t>(end - begin), &raw, options);
    const std::unique_ptr<utf8proc_uint8_t, Free> mapped(raw);
    require(size >= 0, "unicode normalization", "{}", utf8proc_errmsg(size));
    const std::string_view now(reinterpret_cast<const char*>(mapped.get()), static_cast<size_t>(size));
    if (now == text.substr(begin, end - begin)) {
      out.keep(begin, end);
    } else {
      out.put(now, begin, end);
    }
    begin = end;
  }
  return out.done();
}

}  // namespace nibble::text
