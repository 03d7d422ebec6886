#include "text/jinja_string.h"

#include <fmt/core.h>
#include <string.h>  // memmem
#include <utf8proc.h>

#include <algorithm>

#include "base/text.h"

namespace nibble::text::jinja {
namespace {

utf8proc_category_t category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }
bool is_cased(char32_t c) { return is_upper(c) || is_lower(c) || category(c) == UTF8PROC_CATEGORY_LT; }

void append_upper(std::string& out, char32_t c, bool title) {
  if (c == 0xDF) {
    out += title ? "Ss" : "SS";
    return;
  }
  const auto code = static_cast<utf8proc_int32_t>(c);
  append_utf8(out, static_cast<char32_t>(title ? utf8proc_totitle(code) : utf8proc_toupper(code)));
}

void append_lower(std::string& out, char32_t c) {
  if (c == 0x130) {  // the one letter whose lower case is two code points
    out += "i\xCC\x87";
    return;
  }
  append_utf8(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
}

// Calls visit(code point, its bytes, its run) for each code point.
template <class F>
void for_each_code_point(const Str& s, F visit) {
  size_t run = 0;
  for (size_t at = 0; at < s.size();) {
    size_t length = 0;
    const char32_t c = code_point_at(s.bytes, at, length);
    while (s.runs[run].end <= at) ++run;
    visit(c, std::string_view(s.bytes).substr(at, length), s.runs[run]);
    at += length;
  }
}

}  // namespace

void Budget::charge(size_t steps) {
  left_ -= static_cast<int64_t>(std::min<size_t>(steps, kSteps + 1));
  if (left_ < 0)
    throw Fault{"the template needs more than 1,000,000 steps for these messages; does it loop without end?"};
}

void Budget::require_size(size_t bytes) const {
  if (bytes > kBytes) throw Fault{"the template makes a text of more than 16 MiB"};
}

void append(Str& to, std::string_view text, Run source) {
  if (text.empty()) return;
  if (to.size() + text.size() > Budget::kBytes) throw Fault{"the template makes a text of more than 16 MiB"};
  to.bytes.append(text);
  source.end = static_cast<uint32_t>(to.size());
  if (!to.runs.empty() && to.runs.back().same_source(source)) {
    to.runs.back().end = source.end;
  } else {
    to.runs.push_back(source);
  }
}

void append_slice(Str& to, const Str& from, size_t begin, size_t end) {
  end = std::min(end, from.size());
  if (begin >= end) return;
  auto run = std::upper_bound(from.runs.begin(), from.runs.end(), begin,
                              [](size_t at, const Run& r) { return at < r.end; });
  while (begin < end) {
    const size_t stop = std::min<size_t>(end, run->end);
    append(to, from.view().substr(begin, stop - begin), *run);
    begin = stop;
    ++run;
  }
}

void append(Str& to, const Str& from) { append_slice(to, from, 0, from.size()); }

Str slice(const Str& from, size_t begin, size_t end) {
  Str out;
  append_slice(out, from, begin, end);
  out.markup = from.markup;
  return out;
}

char32_t code_point_at(std::string_view text, size_t at, size_t& length) {
  const auto b = static_cast<unsigned char>(text[at]);
  length = 1;
  if (b < 0xC0) return b;
  const size_t n = b < 0xE0 ? 2 : b < 0xF0 ? 3 : 4;
  if (at + n > text.size()) return b;
  char32_t c = b & (0xFFu >> (n + 1));
  for (size_t k = 1; k < n; ++k) c = (c << 6) | (static_cast<unsigned char>(text[at + k]) & 0x3F);
  length = n;
  return c;
}

size_t count_code_points(std::string_view text) {
  size_t n = 0;
  for (const char c : text) n += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return n;
}

size_t code_point_offset(std::string_view text, size_t index) {
  for (size_t at = 0; at < text.size(); ++at) {
    if ((static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) continue;
    if (index-- == 0) return at;
  }
  return text.size();
}

bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool is_alpha(char32_t c) {
  const auto k = category(c);
  return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT ||
         k == UTF8PROC_CATEGORY_LM || k == UTF8PROC_CATEGORY_LO;
}

bool is_decimal(char32_t c) { return category(c) == UTF8PROC_CATEGORY_ND; }

bool is_printable(char32_t c) {
  if (c == ' ') return true;
  switch (category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

bool is_upper(char32_t c) { return category(c) == UTF8PROC_CATEGORY_LU; }
bool is_lower(char32_t c) { return category(c) == UTF8PROC_CATEGORY_LL; }

size_t find(std::string_view text, std::string_view what, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (what.empty()) return from;
  const void* hit = memmem(text.data() + from, text.size() - from, what.data(), what.size());
  return hit == nullptr ? std::string_view::npos
                        : static_cast<size_t>(static_cast<const char*>(hit) - text.data());
}

size_t rfind(std::string_view text, std::string_view what) {
  if (what.empty()) return text.size();
  std::string a(text.rbegin(), text.rend()), b(what.rbegin(), what.rend());
  const size_t at = find(a, b);
  return at == std::string_view::npos ? at : text.size() - at - what.size();
}

Str strip(const Str& s, Side side, const std::string_view* chars) {
  const auto drop = [&](char32_t c, std::string_view bytes) {
    return chars == nullptr ? is_space(c) : find(*chars, bytes) != std::string_view::npos;
  };
  size_t begin = 0, end = s.size();
  if ((static_cast<int>(side) & static_cast<int>(Side::kLeft)) != 0) {
    while (begin < end) {
      size_t n = 0;
      const char32_t c = code_point_at(s.bytes, begin, n);
      if (!drop(c, s.view().substr(begin, n))) break;
      begin += n;
    }
  }
  if ((static_cast<int>(side) & static_cast<int>(Side::kRight)) != 0) {
    while (end > begin) {
      size_t at = end - 1, n = 0;
      while (at > begin && (static_cast<unsigned char>(s.bytes[at]) & 0xC0) == 0x80) --at;
      const char32_t c = code_point_at(s.bytes, at, n);
      if (!drop(c, s.view().substr(at, end - at))) break;
      end = at;
    }
  }
  return slice(s, begin, end);
}

Str replace(const Str& s, std::string_view from, const Str& to, int64_t limit, Budget& budget) {
  budget.charge_text(s);
  Str out;
  out.markup = s.markup;
  size_t at = 0;
  const auto put = [&] {
    budget.charge(to.size() / 512 + to.runs.size());
    append(out, to);
    --limit;
  };
  if (from.empty()) {  // as Python does: before each character and at the end
    while (limit != 0) {
      put();
      if (at >= s.size()) return out;
      size_t n = 0;
      (void)code_point_at(s.bytes, at, n);
      append_slice(out, s, at, at + n);
      at += n;
    }
  }
  while (limit != 0) {
    const size_t hit = find(s.bytes, from, at);
    if (hit == std::string_view::npos) break;
    append_slice(out, s, at, hit);
    put();
    at = hit + from.size();
  }
  append_slice(out, s, at, s.size());
  return out;
}

std::vector<Str> split(const Str& s, const std::string_view* separator, int64_t limit, bool from_right,
                       Budget& budget) {
  budget.charge_text(s);
  // Pieces as [begin, end): found from the left, or from the right and then turned around.
  std::vector<std::pair<size_t, size_t>> pieces;
  if (separator != nullptr) {
    if (separator->empty()) throw Fault{"split() got an empty separator"};
    std::vector<size_t> hits;
    if (!from_right) {
      for (size_t at = 0; limit < 0 || static_cast<int64_t>(hits.size()) < limit;) {
        const size_t hit = find(s.bytes, *separator, at);
        if (hit == std::string_view::npos) break;
        hits.push_back(hit);
        at = hit + separator->size();
      }
    } else {
      std::string_view rest = s.bytes;
      while (limit < 0 || static_cast<int64_t>(hits.size()) < limit) {
        budget.charge_bytes(rest.size());
        const size_t hit = rfind(rest, *separator);
        if (hit == std::string_view::npos) break;
        hits.push_back(hit);
        rest = rest.substr(0, hit);
      }
      std::reverse(hits.begin(), hits.end());
    }
    size_t begin = 0;
    for (const size_t hit : hits) {
      pieces.emplace_back(begin, hit);
      begin = hit + separator->size();
    }
    pieces.emplace_back(begin, s.size());
  } else {
    std::vector<std::pair<size_t, size_t>> words;
    for (size_t at = 0; at < s.size();) {
      size_t n = 0;
      const bool space = is_space(code_point_at(s.bytes, at, n));
      if (!space && (words.empty() || words.back().second != at)) words.emplace_back(at, at);
      if (!space) words.back().second = at + n;
      at += n;
    }
    if (limit >= 0 && static_cast<int64_t>(words.size()) > limit) {
      // One piece keeps all that was not split, with its white space except where it was cut.
      const auto cuts = static_cast<std::ptrdiff_t>(limit);
      if (from_right) {
        const auto rest = words.end() - cuts - 1;
        rest->first = 0;
        words.erase(words.begin(), rest);
      } else {
        words[static_cast<size_t>(cuts)].second = s.size();
        words.resize(static_cast<size_t>(cuts) + 1);
      }
    }
    pieces = std::move(words);
  }
  budget.charge_items(pieces.size());
  std::vector<Str> out;
  out.reserve(pieces.size());
  for (const auto& [begin, end] : pieces) out.push_back(slice(s, begin, end));
  return out;
}

std::vector<Str> split_lines(const Str& s, bool keep_ends, Budget& budget) {
  budget.charge_text(s);
  std::vector<Str> out;
  size_t begin = 0;
  for (size_t at = 0; at < s.size();) {
    size_t n = 0;
    const char32_t c = code_point_at(s.bytes, at, n);
    const bool ends =
        (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
    size_t next = at + n;
    if (ends && c == '\r' && next < s.size() && s.bytes[next] == '\n') ++next;
    if (ends) {
      budget.charge_items(1);
      out.push_back(slice(s, begin, keep_ends ? next : at));
      begin = next;
    }
    at = next;
  }
  if (begin < s.size()) out.push_back(slice(s, begin, s.size()));
  return out;
}

Str change_case(const Str& s, Case how) {
  Str out;
  out.markup = s.markup;
  bool start = true;  // of the text or of a word
  std::string mapped;
  for_each_code_point(s, [&](char32_t c, std::string_view, const Run& run) {
    mapped.clear();
    switch (how) {
      case Case::kUpper:
        append_upper(mapped, c, false);
        break;
      case Case::kLower:
        append_lower(mapped, c);
        break;
      case Case::kSwap:
        if (is_upper(c)) {
          append_lower(mapped, c);
        } else {
          append_upper(mapped, c, false);
        }
        break;
      case Case::kCapitalize:
      case Case::kTitle:
      case Case::kWordTitle:
        if (start) {
          append_upper(mapped, c, how != Case::kWordTitle);
        } else {
          append_lower(mapped, c);
        }
        if (how == Case::kCapitalize) start = false;
        if (how == Case::kTitle) start = !is_cased(c);
        if (how == Case::kWordTitle)
          start = is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
        break;
    }
    append(out, mapped, run);
  });
  return out;
}

void append_repr(Str& to, const Str& s) {
  const bool double_quotes =
      s.bytes.find('\'') != std::string::npos && s.bytes.find('"') == std::string::npos;
  const char quote = double_quotes ? '"' : '\'';
  const Run first = s.runs.empty() ? Run{} : s.runs.front();
  append(to, std::string_view(&quote, 1), first);
  for_each_code_point(s, [&](char32_t c, std::string_view bytes, const Run& run) {
    if (c == static_cast<unsigned char>(quote) || c == '\\') {
      append(to, "\\", run);
      append(to, bytes, run);
    } else if (c == '\n' || c == '\r' || c == '\t') {
      append(to, c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t", run);
    } else if (!is_printable(c)) {
      append(to,
             c < 0x100     ? fmt::format("\\x{:02x}", static_cast<uint32_t>(c))
             : c < 0x10000 ? fmt::format("\\u{:04x}", static_cast<uint32_t>(c))
                           : fmt::format("\\U{:08x}", static_cast<uint32_t>(c)),
             run);
    } else {
      append(to, bytes, run);
    }
  });
  append(to, std::string_view(&quote, 1), s.runs.empty() ? first : s.runs.back());
}

Str escape_html(const Str& s) {
  Str out;
  out.markup = true;
  for_each_code_point(s, [&](char32_t c, std::string_view bytes, const Run& run) {
    append(out,
           c == '&'    ? "&amp;"
           : c == '<'  ? "&lt;"
           : c == '>'  ? "&gt;"
           : c == '\'' ? "&#39;"
           : c == '"'  ? "&#34;"
                       : bytes,
           run);
  });
  return out;
}

}  // namespace nibble::text::jinja
