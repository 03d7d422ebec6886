#include "base/text.h"
#include "text/tokenizer.h"

namespace nibble::text {

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skip_special)
    : tokenizer_(tokenizer), skip_special_(skip_special) {}

// Only the last tokens are decoded again, so that a step costs the same however long the text is. Those
// before the new one are there so that no decoder takes it for the start of the text; they are let go once
// later ones give text too.
std::string StreamDecoder::push(int32_t id) {
  window_.push_back(id);
  const std::string text = tokenizer_.decode(window_, skip_special_);
  if (text.size() <= known_) return "";
  pending_.append(text, known_);
  known_ = text.size();
  const auto later = std::span(window_).subspan(kept_);
  if (const size_t size = tokenizer_.decode(later, skip_special_).size(); size > 0) {
    window_.erase(window_.begin(), window_.begin() + static_cast<ptrdiff_t>(kept_));
    known_ = size;
    kept_ = window_.size();
  }
  const size_t ready = complete_utf8_prefix(pending_);
  std::string out = replace_invalid_utf8(std::string_view(pending_).substr(0, ready));
  pending_.erase(0, ready);
  return out;
}

std::string StreamDecoder::finish() {
  std::string out = replace_invalid_utf8(pending_);
  pending_.clear();
  return out;
}

}  // namespace nibble::text
