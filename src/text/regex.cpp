#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/error.h"
#include "base/text.h"
#include "text/aligned.h"

namespace nibble::text {
namespace {

constexpr uint32_t kMatchLimit = 20'000'000;
constexpr uint32_t kHeapLimitKiB = 256 * 1024;
constexpr size_t kJitStackBytes = size_t{8} << 20;

struct Closer {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
  void operator()(pcre2_jit_stack* p) const { pcre2_jit_stack_free(p); }
};

// What matching needs besides the pattern; one per thread, since it is written to.
struct Scratch {
  std::unique_ptr<pcre2_match_data, Closer> data{pcre2_match_data_create(1, nullptr)};
  std::unique_ptr<pcre2_match_context, Closer> context{pcre2_match_context_create(nullptr)};
  std::unique_ptr<pcre2_jit_stack, Closer> stack{pcre2_jit_stack_create(32 * 1024, kJitStackBytes, nullptr)};

  Scratch() {
    require(data && context && stack, "regex", "out of memory");
    pcre2_set_match_limit(context.get(), kMatchLimit);
    pcre2_set_heap_limit(context.get(), kHeapLimitKiB);
    pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
  }
};

std::string message_of(int code) {
  PCRE2_UCHAR text[256] = {};  // a code it does not know leaves it as it is
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

// Oniguruma's dialect into PCRE2's: see the header.
std::string translate(std::string_view pattern) {
  std::string out;
  int depth = 0;  // of classes
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char e = pattern[++i];
      switch (e) {
        case 's':
          out += "\\p{White_Space}";
          break;
        case 'S':
          out += "\\P{White_Space}";
          break;
        case 'w':
          out += depth > 0 ? "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}" : "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}]";
          break;
        case 'W':
          if (depth == 0) {
            out += "[^\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}]";
            break;
          }
          [[fallthrough]];
        default:
          out += '\\';
          out += e;
      }
    } else if (c == '[') {
      const bool posix = depth > 0 && i + 1 < pattern.size() && pattern[i + 1] == ':';
      const bool negated = i + 1 < pattern.size() && pattern[i + 1] == '^';
      if (posix) {
        const size_t end = pattern.find(":]", i + 2);
        if (end == std::string_view::npos) {
          out += "\\[";
        } else {
          out.append(pattern.substr(i, end + 2 - i));
          i = end + 1;
        }
        continue;
      }
      if (depth == 0) {
        out += '[';
        if (negated) {
          out += '^';
          ++i;
        }
        if (i + 1 < pattern.size() && pattern[i + 1] == ']') {  // a literal ] in first place
          out += "\\]";
          ++i;
        }
        depth = 1;
      } else if (negated) {
        out += '[';  // not expressible: PCRE2 reads it as a literal
      } else {
        ++depth;  // a union: its brackets are left out
      }
    } else if (c == ']' && depth > 0) {
      if (--depth == 0) out += ']';
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace

struct Regex::Impl {
  std::unique_ptr<pcre2_code, Closer> code;
  std::string where;
  bool jit = false;
};

Regex::Regex(std::string_view pattern, std::string where) : impl_(std::make_unique<Impl>()) {
  impl_->where = std::move(where);
  const std::string translated = translate(pattern);
  int error = 0;
  PCRE2_SIZE offset = 0;
  impl_->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                  PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr));
  if (impl_->code == nullptr)
    fail(impl_->where, "the pattern \"{}\" cannot be used: {} at offset {}", pattern, message_of(error),
         offset);
  impl_->jit = pcre2_jit_compile(impl_->code.get(), PCRE2_JIT_COMPLETE) == 0;
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;

bool Regex::find(std::string_view subject, size_t from, size_t& begin, size_t& end) const {
  thread_local Scratch scratch;
  const auto* text = reinterpret_cast<PCRE2_SPTR>(subject.data());
  while (from <= subject.size()) {
    int result = impl_->jit ? pcre2_jit_match(impl_->code.get(), text, subject.size(), from, 0,
                                              scratch.data.get(), scratch.context.get())
                            : PCRE2_ERROR_JIT_STACKLIMIT;
    if (result == PCRE2_ERROR_JIT_STACKLIMIT)
      result = pcre2_match(impl_->code.get(), text, subject.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                           scratch.data.get(), scratch.context.get());
    if (result == PCRE2_ERROR_NOMATCH) return false;
    if (result < 0) fail(impl_->where, "matching the tokenizer's pattern failed: {}", message_of(result));
    const PCRE2_SIZE* at = pcre2_get_ovector_pointer(scratch.data.get());
    // \K in a lookahead could turn the two round.
    require(at[0] <= at[1] && at[1] <= subject.size(), impl_->where,
            "the tokenizer's pattern gives an inverted match");
    if (at[0] < at[1]) {
      begin = at[0];
      end = at[1];
      return true;
    }
    if (at[0] >= subject.size()) return false;
    from = at[0] + char_length(subject, at[0]);
  }
  return false;
}

std::string regex_escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (std::string_view("\\^$.[]|()?*+{}-#").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

}  // namespace nibble::text
