// The text of one answer as its tokens arrive, and whether a stop string has come.
//
// Nothing is handed out that may still turn out to be the beginning of a stop string, so that a streamed
// answer never shows a part of one. A token that completes a stop string ends the text before it.
#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace nibble::eval {

class TextStream {
 public:
  // `prompt`: the ids before the answer; the first new token is spelled as it follows them (its leading space
  // stays).
  TextStream(const text::Tokenizer& tokenizer, std::span<const int32_t> prompt,
             std::vector<std::string> stop);

  // What may be shown now.
  std::string push(int32_t id);
  // The rest, when no further token comes.
  std::string finish();
  // A stop string was found; text() ends before it.
  bool stopped() const { return stopped_; }
  // Everything handed out so far.
  const std::string& text() const { return text_; }

 private:
  std::string release(std::string_view added, bool last);

  text::StreamDecoder decoder_;
  std::vector<std::string> stop_;
  std::string text_, held_;
  bool stopped_ = false;
};

}  // namespace nibble::eval
