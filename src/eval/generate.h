// Text from a model: prefill, then one token at a time for several sequences at once.
//
// Sequences share forwards: each forward takes one token of every sequence that is answering and, up to a
// budget, tokens of prompts that are still being read; a sequence that ends gives its cache slot to the next
// prompt at once. An encoder–decoder reads a prompt with its encoder, whole and with the end token behind it,
// and answers from its start token. Sequences never see each other, and each draws from its own random
// stream, so a prompt's answer is the one it gets alone (in f32; in bf16 up to rounding).
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backend/kernels/matvec.h"
#include "eval/sampler.h"
#include "io/weights.h"
#include "models/model.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace nibble::eval {

struct GenerateOptions {
  SamplingOptions sampling;
  int64_t max_new_tokens = 256;
  std::vector<int32_t> stop_ids;  // end an answer; neither in its text nor in its ids
  std::vector<std::string> stop;  // end an answer before they appear in its text
  int64_t context = 0;            // most tokens of prompt and answer; 0: what the model was made for
  int64_t batch = 16;             // most sequences at once (fewer when the cache would take over 2 GiB)
  uint64_t first_stream = 0;      // number of the first random stream: a chat's turn, for example
  // Errors: UsageError naming the option.
  void check() const;
};

// What ends an answer: the tokenizer's EOS, eos_token_id of config.json and of generation_config.json, and
// the template's end of turn (`chat` may be null). Ascending.
std::vector<int32_t> stop_ids(const io::ModelFiles& files, const text::Tokenizer& tokenizer,
                              const text::ChatTemplate* chat);

enum class Finish { kStop, kLength, kCancelled };
const char* finish_name(Finish finish);  // "stop", "length", "cancelled"

struct Generated {
  std::vector<int32_t> ids;  // new tokens
  std::string text;
  Finish finish = Finish::kCancelled;
  int64_t prompt_tokens = 0;
};

// New text of answer `index`; false cancels all that is unfinished.
using OnText = std::function<bool(size_t index, std::string_view text)>;

class Generator {
 public:
  // The adapters of `cx` are in force. All three must outlive the generator.
  Generator(autograd::Context& cx, const models::Model& model, const text::Tokenizer& tokenizer);

  // Answers in the order of the prompts. Ctrl-C (base/process.h) cancels. A single prompt that begins like
  // the last single one, as in a chat, reads only what is new. Errors: an empty prompt, or one that leaves no
  // room in the context (its number and both lengths).
  std::vector<Generated> run(const std::vector<std::vector<int32_t>>& prompts, const GenerateOptions& options,
                             const OnText& on_text = {});

  // Of the last run: prompt tokens read, tokens written, and those of them (with the seconds) that came from
  // forwards in which no prompt was read.
  struct Timing {
    int64_t read = 0, written = 0, decoded = 0;
    double seconds = 0, decode_seconds = 0;
    // Speed of writing; with a single token it is that of the whole run.
    double tokens_per_second() const;
  };
  const Timing& timing() const { return timing_; }

 private:
  class Run;
  void provide_cache(int64_t wanted, int64_t capacity, int64_t context, int64_t source_capacity);
  Tensor forward(const std::vector<int32_t>& slots, const std::vector<std::vector<int32_t>>& ids,
                 const std::vector<std::vector<int32_t>>& sources, const std::vector<int32_t>& rows);

  autograd::Context& cx_;
  const models::Model& model_;
  const text::Tokenizer& tokenizer_;
  std::unique_ptr<nn::KvCache> cache_;
  std::vector<int32_t> held_;  // the ids whose keys and values a cache of one slot holds
  backend::GroupedWeights grouped_;
  Timing timing_;
};

}  // namespace nibble::eval
