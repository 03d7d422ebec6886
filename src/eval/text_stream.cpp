#include "eval/text_stream.h"

#include <algorithm>

namespace nibble::eval {
namespace {

// Enough ids that the decoder knows it is not at the start of a text.
constexpr size_t kPromptTail = 4;

// Length of the longest end of `text` that is a proper beginning of `stop`.
size_t overlap(std::string_view text, std::string_view stop) {
  for (size_t n = std::min(text.size(), stop.size() - 1); n > 0; --n)
    if (text.ends_with(stop.substr(0, n))) return n;
  return 0;
}

}  // namespace

TextStream::TextStream(const text::Tokenizer& tokenizer, std::span<const int32_t> prompt,
                       std::vector<std::string> stop)
    : decoder_(tokenizer), stop_(std::move(stop)) {
  std::erase(stop_, "");
  for (const int32_t id : prompt.last(std::min(kPromptTail, prompt.size()))) decoder_.push(id);
}

std::string TextStream::push(int32_t id) { return release(decoder_.push(id), false); }

std::string TextStream::finish() { return release(decoder_.finish(), true); }

std::string TextStream::release(std::string_view added, bool last) {
  if (stopped_) return "";
  held_ += added;
  size_t end = std::string::npos, hold = 0;
  for (const std::string& stop : stop_) {
    end = std::min(end, held_.find(stop));
    hold = std::max(hold, overlap(held_, stop));
  }
  stopped_ = end != std::string::npos;
  if (!stopped_) end = last ? held_.size() : held_.size() - hold;
  std::string shown = held_.substr(0, end);
  held_.erase(0, end);
  text_ += shown;
  return shown;
}

}  // namespace nibble::eval
