// One training example on its way from a file to tokens.
//
// Reader (formats/<name>.cpp) → Example (text with roles) → encode → EncodedExample (ids and what is
// trained).
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"

namespace nibble::data {

// A stretch of text outside any chat template; `train` says whether its tokens are learned.
struct Segment {
  std::string text;
  bool train = false;
};

// Either `messages` (rendered by the model's chat template) or `segments` (tokenized one after another, BOS
// and EOS as the format says) is filled.
struct Example {
  Json messages;  // [{"role", "content", …}], or null
  std::vector<bool>
      train_message;  // per message: is it learned? (assistant turns by default; all for OASST1, HH-RLHF)
  bool turn_choices = false;  // a message said itself whether it is learned: no option overrides that
  bool train_all = false;     // the whole rendered conversation is learned (OASST1 and HH-RLHF in the paper)
  std::vector<Segment> segments;
  bool end_of_text = true;  // segments: EOS after the last one, learned when the last one is
  // A text, or two that belong together (one segment each), to be classified or scored as a whole: the
  // class's number or the score, and which of GLUE's tasks it is of.
  std::optional<double> label;
  std::string task;
  std::string source;  // "alpaca.json:17" for messages to people
};

// Token i is learned when train[i] is set: the model at token i-1 predicts it. train[0] is always 0. Where
// there is a label, it alone is learned.
struct EncodedExample {
  std::vector<int32_t> ids;
  std::vector<uint8_t> train;
  std::string source;
  std::optional<double> label = {};
  int32_t first_tokens = 0, second_tokens = 0;  // with a label: of its texts, without what stands around them
  int32_t second_begin = 0;                     // where tokens of type 1 begin; 0: there are none
  // For an encoder–decoder: so many ids are the source; behind them stand the token that the decoder starts
  // from and what it is to write. 0: one stream.
  int32_t source_tokens = 0;
  // Tokens of the stream in which something is learned; the decoder never reads its last one.
  int64_t length() const {
    return static_cast<int64_t>(ids.size()) - (source_tokens > 0 ? source_tokens + 1 : 0);
  }
  int64_t trained() const {
    if (label) return 1;
    int64_t n = 0;
    for (const uint8_t t : train) n += t;
    return n;
  }
};

}  // namespace nibble::data
