// One training example on its way from a file to tokens.
//
// Reader (formats/<name>.cpp) → Example (text with roles) → encode → EncodedExample (ids and what is trained).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"

namespace nibble::data {

// A stretch of text outside any chat template; `train` says whether its tokens are learned.
struct Segment {
  std::string text;
  bool train = false;
};

// Either `messages` (rendered by the model's chat template) or `segments` (tokenized one after another, BOS and EOS as
// the format says) is filled.
struct Example {
  Json messages;                    // [{"role", "content", …}], or null
  std::vector<bool> train_message;  // per message: is it learned? (assistant turns by default; all for OASST1, HH-RLHF)
  bool turn_choices = false;        // a message said itself whether it is learned: no option overrides that
  bool train_all = false;           // the whole rendered conversation is learned (OASST1 and HH-RLHF in the paper)
  std::vector<Segment> segments;
  bool end_of_text = true;          // segments: EOS after the last one, learned when the last one is
  std::string source;               // "alpaca.json:17" for messages to people
};

// Token i is learned when train[i] is set: the model at token i-1 predicts it. train[0] is always 0.
struct EncodedExample {
  std::vector<int32_t> ids;
  std::vector<uint8_t> train;
  std::string source;
  int64_t trained() const {
    int64_t n = 0;
    for (const uint8_t t : train) n += t;
    return n;
  }
};

}  // namespace nibble::data
