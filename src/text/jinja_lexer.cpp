#include "text/jinja_lexer.h"

#include <fmt/core.h>

#include <charconv>

#include "base/text.h"

namespace nibble::text::jinja {
namespace {

std::string normalize_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();  // keep_trailing_newline=False
  return out;
}

bool name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c & 0x80) != 0;
}
bool digit(char c) { return c >= '0' && c <= '9'; }

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalize_newlines(source)) {}

  std::vector<Lexeme> run() {
    while (at_ < source_.size()) data();
    add(Token::kEnd, "");
    return std::move(out_);
  }

 private:
  [[noreturn]] void fail(std::string message) const { throw SyntaxFault{std::move(message), line_}; }
  void add(Token token, std::string text) { out_.push_back({token, line_, std::move(text), 0, 0}); }
  bool starts(std::string_view what, size_t at) const {
    return std::string_view(source_).substr(at).starts_with(what);
  }

  // Moves on by `bytes` and counts lines.
  void advance(size_t bytes) {
    for (size_t i = 0; i < bytes; ++i)
      if (source_[at_ + i] == '\n') ++line_;
    at_ += bytes;
    line_starting_ = at_ > 0 && source_[at_ - 1] == '\n';
  }

  size_t space_length(size_t at) const {
    size_t n = 0;
    while (at + n < source_.size()) {
      size_t length = 0;
      if (!is_space(code_point_at(source_, at + n, length))) break;
      n += length;
    }
    return n;
  }

  // Emits the text [at_, begin) in front of a tag whose sign (-, + or none) follows its two opening
  // characters.
  void text_before(size_t begin, bool block) {
    std::string_view text = std::string_view(source_).substr(at_, begin - at_);
    const char sign = begin + 2 < source_.size() ? source_[begin + 2] : ' ';
    if (sign == '-') {
      while (!text.empty()) {
        size_t last = text.size() - 1, n = 0;
        while (last > 0 && (static_cast<unsigned char>(text[last]) & 0xC0) == 0x80) --last;
        if (!is_space(code_point_at(text, last, n))) break;
        text = text.substr(0, last);
      }
    } else if (sign != '+' && block) {  // lstrip_blocks
      const size_t line = text.rfind('\n') + 1;
      if (line > 0 || line_starting_) {
        const std::string_view rest = text.substr(line);
        size_t n = 0;
        while (n < rest.size()) {
          size_t length = 0;
          if (!is_space(code_point_at(rest, n, length))) break;
          n += length;
        }
        if (n == rest.size()) text = text.substr(0, line);
      }
    }
    if (!text.empty()) add(Token::kData, std::string(text));
  }

  // The next "{{", "{%" or "{#", or the end of the source.
  void data() {
    size_t begin = at_;
    for (;; ++begin) {
      begin = source_.find('{', begin);
      if (begin == std::string::npos || begin + 1 >= source_.size()) {
        add(Token::kData, source_.substr(at_));
        advance(source_.size() - at_);
        return;
      }
      const char c = source_[begin + 1];
      if (c == '{' || c == '%' || c == '#') break;
    }
    const char kind = source_[begin + 1];
    text_before(begin, kind != '{');
    advance(begin - at_);
    const bool sign = begin + 2 < source_.size() && (source_[begin + 2] == '-' || source_[begin + 2] == '+');
    if (kind == '#') {
      const size_t inside = begin + 2 + (sign ? 1 : 0), end = source_.find("#}", inside);
      if (end == std::string::npos) fail("a comment {# is not closed");
      advance(end - at_);
      finish_tag("#}", end > inside ? source_[end - 1] : ' ');
      return;
    }
    if (kind == '%') {
      const size_t word = begin + 2 + (sign ? 1 : 0);
      const size_t name = word + space_length(word);
      if (starts("raw", name)) {
        size_t end = name + 3;
        end += space_length(end);
        if (starts("%}", end) || starts("-%}", end)) {
          raw(end);
          return;
        }
      }
    }
    advance(2 + (sign ? 1 : 0));
    add(kind == '{' ? Token::kVariableBegin : Token::kBlockBegin, "");
    tag(kind == '{');
  }

  // After "%}" or "#}" at at_, whose preceding character was `sign`: what trim_blocks and "-" take away.
  void finish_tag(std::string_view close, char sign) {
    advance(close.size());
    if (sign == '-') {
      advance(space_length(at_));
    } else if (sign != '+' && close != "}}" && at_ < source_.size() && source_[at_] == '\n') {
      advance(1);
    }
  }

  void raw(size_t end) {
    const bool minus = source_[end] == '-';
    advance(end + (minus ? 3 : 2) - at_);
    if (minus) advance(space_length(at_));
    for (size_t begin = at_;; ++begin) {
      begin = source_.find("{%", begin);
      if (begin == std::string::npos) fail("{% raw %} is not closed by {% endraw %}");
      size_t word = begin + 2;
      if (word < source_.size() && (source_[word] == '-' || source_[word] == '+')) ++word;
      word += space_length(word);
      if (!starts("endraw", word)) continue;
      word += 6;
      word += space_length(word);
      char sign = ' ';
      if (word < source_.size() && (source_[word] == '-' || source_[word] == '+')) sign = source_[word++];
      if (!starts("%}", word)) continue;
      text_before(begin, true);
      advance(word - at_);
      finish_tag("%}", sign);
      return;
    }
  }

  void tag(bool variable) {
    const std::string_view close = variable ? "}}" : "%}";
    std::string braces;
    for (;;) {
      advance(space_length(at_));
      if (at_ >= source_.size()) fail(fmt::format("a tag is not closed by {}", close));
      if (braces.empty()) {
        const char c = source_[at_];
        const bool sign = (c == '-' || (c == '+' && !variable)) && starts(close, at_ + 1);
        if (sign || starts(close, at_)) {
          add(variable ? Token::kVariableEnd : Token::kBlockEnd, "");
          if (sign) advance(1);
          finish_tag(close, sign ? c : ' ');
          return;
        }
      }
      lexeme(braces);
    }
  }

  void lexeme(std::string& braces) {
    const char c = source_[at_];
    if (name_start(c)) {
      size_t end = at_;
      while (end < source_.size() && (name_start(source_[end]) || digit(source_[end]))) ++end;
      add(Token::kName, source_.substr(at_, end - at_));
      advance(end - at_);
    } else if (digit(c)) {
      number();
    } else if (c == '"' || c == '\'') {
      string(c);
    } else {
      static constexpr std::string_view kTwo[] = {"//", "**", "==", "!=", ">=", "<="};
      static constexpr std::string_view kOne = "+-/*%~[](){}><=.:|,;";
      std::string op;
      for (const auto two : kTwo)
        if (starts(two, at_)) op = two;
      if (op.empty() && kOne.find(c) != std::string_view::npos) op = c;
      if (op.empty()) fail(fmt::format("unexpected character {:?}", std::string_view(&c, 1)));
      if (c == '(' || c == '[' || c == '{') braces += c == '(' ? ')' : c == '[' ? ']' : '}';
      if (c == ')' || c == ']' || c == '}') {
        if (braces.empty()) fail(fmt::format("unexpected '{}'", c));
        if (braces.back() != c) fail(fmt::format("unexpected '{}', expected '{}'", c, braces.back()));
        braces.pop_back();
      }
      add(Token::kOperator, op);
      advance(op.size());
    }
  }

  void number() {
    size_t end = at_;
    const auto digits = [&](size_t from) {
      size_t n = from;
      while (n < source_.size() &&
             (digit(source_[n]) || (source_[n] == '_' && n + 1 < source_.size() && digit(source_[n + 1]))))
        ++n;
      return n;
    };
    end = digits(at_);
    if (end == at_ + 1 && source_[at_] == '0' && end < source_.size() &&
        (source_[end] == 'x' || source_[end] == 'b' || source_[end] == 'o'))
      fail("hexadecimal, octal and binary numbers are not supported");
    bool real = false;
    const bool subscript = at_ > 0 && source_[at_ - 1] == '.';  // x.0.1 is two subscripts
    if (!subscript && end + 1 < source_.size() && source_[end] == '.' && digit(source_[end + 1])) {
      real = true;
      end = digits(end + 1);
    }
    if (!subscript && end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      size_t power = end + 1;
      if (power < source_.size() && (source_[power] == '+' || source_[power] == '-')) ++power;
      if (power < source_.size() && digit(source_[power])) {
        real = true;
        end = digits(power);
      }
    }
    std::string text;
    for (size_t i = at_; i < end; ++i)
      if (source_[i] != '_') text += source_[i];
    add(real ? Token::kFloat : Token::kInteger, text);
    Lexeme& l = out_.back();
    const auto result = real ? std::from_chars(text.data(), text.data() + text.size(), l.real)
                             : std::from_chars(text.data(), text.data() + text.size(), l.integer);
    if (result.ec != std::errc() || result.ptr != text.data() + text.size())
      fail(fmt::format("the number {} is too large", text));
    advance(end - at_);
  }

  void string(char quote) {
    size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) fail("a string is not closed");
    add(Token::kString, unescape(std::string_view(source_).substr(at_ + 1, end - at_ - 1)));
    advance(end + 1 - at_);
  }

  // Python's unicode-escape.
  std::string unescape(std::string_view raw) const {
    std::string out;
    for (size_t i = 0; i < raw.size(); ++i) {
      if (raw[i] != '\\' || i + 1 >= raw.size()) {
        out += raw[i];
        continue;
      }
      const char c = raw[++i];
      static constexpr std::string_view kFrom = "ntrabfv\\'\"", kTo = "\n\t\r\a\b\f\v\\'\"";
      if (const size_t k = kFrom.find(c); k != std::string_view::npos) {
        out += kTo[k];
      } else if (c == '\n') {
        continue;
      } else if (c == 'x' || c == 'u' || c == 'U') {
        const size_t n = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        uint32_t code = 0;
        const std::string_view digits = raw.substr(i + 1, n);
        const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
        if (digits.size() != n || result.ptr != digits.data() + n)
          fail(fmt::format("\\{} needs {} hexadecimal digits", c, n));
        if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
          fail(fmt::format("\\{}{} is no character", c, digits));
        append_utf8(out, code);
        i += n;
      } else if (c >= '0' && c <= '7') {
        uint32_t code = 0;
        size_t n = 0;
        while (n < 3 && i + n < raw.size() && raw[i + n] >= '0' && raw[i + n] <= '7')
          code = code * 8 + static_cast<uint32_t>(raw[i + n++] - '0');
        append_utf8(out, code);
        i += n - 1;
      } else if (c == 'N') {
        fail("\\N{…} in strings is not supported");
      } else {
        out += '\\';
        out += c;
      }
    }
    return out;
  }

  std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Lexeme> out_;
};

}  // namespace

std::vector<Lexeme> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace nibble::text::jinja
