// Perplexity by strided windows, the protocol of Transformers' "perplexity of fixed-length models".
//
// A document of n tokens has n - 1 predicted ones. Windows of `context` tokens begin `stride` apart; each
// predicts the tokens that no earlier window predicted, so every token is scored once, with at least context
// - stride tokens before it (fewer only at the beginning). With stride = context, where that protocol loses
// the first token of each window, windows overlap by the one token that predicts it.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "models/model.h"

namespace nibble::eval {

struct PerplexityOptions {
  int64_t context = 0;              // 0: what the model was made for, at most 2048
  int64_t stride = 0;               // 0: half the context
  int64_t tokens_per_batch = 2048;  // windows run together up to this many tokens
  std::function<void(int64_t done_tokens, int64_t tokens)> progress;  // of predicted tokens; may be empty
};

struct Window {
  int64_t begin, end;   // tokens [begin, end) are fed
  int64_t scored_from;  // tokens [scored_from, end) are predicted; scored_from > begin
  bool operator==(const Window&) const = default;
};
// The windows of a document of `tokens` tokens; none when there is nothing to predict.
// REQUIRES: context >= 2, 1 <= stride <= context.
std::vector<Window> strided_windows(int64_t tokens, int64_t context, int64_t stride);

struct Perplexity {
  double nll = 0;      // mean over all predicted tokens, natural logarithm
  double ppl = 0;      // exp(nll)
  int64_t tokens = 0;  // predicted tokens
  int64_t documents = 0;
  std::vector<std::vector<float>> log_probs;  // per document: of tokens 1 … n - 1
};

// Errors: UsageError for a context or stride out of range; Error when nothing is predicted or a result is not
// finite (document and token are named); Interrupted.
Perplexity perplexity(autograd::Context& cx, const models::Model& model,
                      const std::vector<std::vector<int32_t>>& documents, const PerplexityOptions& options);

}  // namespace nibble::eval
