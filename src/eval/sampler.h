// From logits to the next token: repetition penalty, temperature, top-k and nucleus, in the order and with
// the meaning that Transformers' logits processors have.
//
//   penalty r   each token already in the text once: logit / r if positive, logit · r if negative (Keskar et
//   al. 2019) temperature logits / T; 0 is greedy: the largest logit, the lowest id among equals top-k only
//   tokens whose logit is at least the k-th largest top-p       the fewest most probable tokens whose
//   probabilities sum to at least p (Holtzman et al. 2020)
// Arithmetic is f64 over f32 logits. Among equals the lower id comes first.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace nibble::eval {

struct SamplingOptions {
  double temperature = 0.7;
  double top_p = 0.9;             // 1: off
  int64_t top_k = 0;              // 0: off
  double repetition_penalty = 1;  // 1: off
  uint64_t seed = 42;

  bool greedy() const { return temperature == 0; }
  // Errors: UsageError naming the option, its range and what came.
  void check() const;
};

struct Candidate {
  int32_t id;
  double probability;
};

// The tokens that may be drawn and their probabilities (sum 1). Ids are those of logits; `history` is the
// text so far, prompt included. Sorted from the most probable down when top-k or top-p is on, else by id. Not
// for greedy options. Errors: Error{"sampler"} for a logit that is NaN or +inf, or when every one is -inf.
std::vector<Candidate> distribution(std::span<const float> logits, std::span<const int32_t> history,
                                    const SamplingOptions& options);

// The token for `step` (0 is the first new one) of text number `stream`: a function of its arguments alone.
int32_t draw_token(std::span<const float> logits, std::span<const int32_t> history,
                   const SamplingOptions& options, uint64_t stream, uint64_t step);

}  // namespace nibble::eval
