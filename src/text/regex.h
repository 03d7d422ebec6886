// Regular expressions as tokenizer.json files write them (Oniguruma's dialect), run by PCRE2's JIT.
// Differences that matter are translated: \s is Unicode's White_Space, \w has every alphabetic character,
// marks and connectors, and a class inside a class is a union. Matching is bounded, so that a hostile pattern
// ends in an error, not in a hang. Threading: find() may be called from any thread.
#pragma once
#include <memory>
#include <string>
#include <string_view>

namespace nibble::text {

class Regex {
 public:
  // Errors: Error{where} with PCRE2's message and the place in the pattern.
  Regex(std::string_view pattern, std::string where);
  ~Regex();
  Regex(Regex&&) noexcept;

  // First match at or after `from` that is not empty; the subject is valid UTF-8 and `from` a character's
  // start. Errors: Error{where} when the matching limit is exceeded.
  bool find(std::string_view subject, size_t from, size_t& begin, size_t& end) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// A pattern that matches exactly this text.
std::string regex_escape(std::string_view text);

}  // namespace nibble::text
