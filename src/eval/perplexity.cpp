#include "eval/perplexity.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/process.h"
#include "ops/ops.h"

namespace nibble::eval {
namespace {

constexpr int64_t kChunkRows = 128;  // rows of logits that exist at once

struct Placed {
  size_t document;
  Window window;
};

// -log p of the scored tokens of all windows, in their order, in one forward.
Tensor score(autograd::Context& cx, const models::Model& model,
             const std::vector<std::vector<int32_t>>& documents, const std::vector<Placed>& batch) {
  std::vector<int32_t> ids, lengths, rows, labels;
  for (const auto& [document, w] : batch) {
    const std::vector<int32_t>& text = documents[document];
    const auto first = static_cast<int64_t>(ids.size());
    ids.insert(ids.end(), text.begin() + w.begin, text.begin() + w.end);
    lengths.push_back(static_cast<int32_t>(w.end - w.begin));
    for (int64_t t = w.scored_from; t < w.end; ++t) {
      rows.push_back(static_cast<int32_t>(first + t - 1 - w.begin));
      labels.push_back(text[static_cast<size_t>(t)]);
    }
  }
  const auto n = static_cast<int64_t>(rows.size()), tokens = static_cast<int64_t>(ids.size());
  const nn::SequenceInput input = nn::packed_input(cx.allocator(), ids, lengths);
  const autograd::Variable h = model.forward(cx, input, nullptr);
  return ops::head_cross_entropy(cx, h, model.head(cx, tokens),
                                 Tensor::borrow(rows.data(), {n}, kI32, nullptr),
                                 Tensor::borrow(labels.data(), {n}, kI32, nullptr), 1, kChunkRows)
      .token_losses;
}

PerplexityOptions checked(PerplexityOptions options, int64_t made_for) {
  auto usage = [](bool ok, const char* name, const std::string& message) {
    if (!ok) throw UsageError(name, message);
  };
  if (options.context == 0) options.context = std::min<int64_t>(made_for, 2048);
  usage(options.context >= 2 && options.context <= made_for, "--context",
        fmt::format("expected 2 to {} tokens (what the model was made for), got {}", made_for,
                    options.context));
  if (options.stride == 0) options.stride = std::max<int64_t>(1, options.context / 2);
  usage(options.stride >= 1 && options.stride <= options.context, "--stride",
        fmt::format("expected 1 to the context of {} tokens, got {}; a larger one would skip tokens",
                    options.context, options.stride));
  return options;
}

}  // namespace

std::vector<Window> strided_windows(int64_t tokens, int64_t context, int64_t stride) {
  std::vector<Window> windows;
  int64_t begin = 0, done = 1;  // tokens before `done` need no (further) prediction
  while (done < tokens) {
    const int64_t end = std::min(begin + context, tokens);
    windows.push_back({begin, end, done});
    done = end;
    begin += std::min(stride, context - 1);
  }
  return windows;
}

Perplexity perplexity(autograd::Context& cx, const models::Model& model,
                      const std::vector<std::vector<int32_t>>& documents, const PerplexityOptions& asked) {
  require(!model.config().reads_source(), "eval ppl",
          "{} is an encoder–decoder: it writes after reading a source, so a text alone has no perplexity; "
          "nibble eval "
          "match compares its answers, and the eval_data of a training run gives the loss of its targets",
          model.config().family);
  const PerplexityOptions options = checked(asked, model.config().max_positions);
  const autograd::NoGrad no_grad(cx);
  Perplexity result;
  result.documents = static_cast<int64_t>(documents.size());
  result.log_probs.resize(documents.size());
  std::vector<Placed> all;
  for (size_t d = 0; d < documents.size(); ++d) {
    const auto n = static_cast<int64_t>(documents[d].size());
    for (const Window& w : strided_windows(n, options.context, options.stride)) all.push_back({d, w});
    result.tokens += std::max<int64_t>(0, n - 1);
  }
  require(result.tokens > 0, "eval ppl", "nothing to predict: {} document{} of at most one token each",
          documents.size(), documents.size() == 1 ? "" : "s");

  double sum = 0;
  int64_t done = 0;
  for (size_t begin = 0, end = 0; begin < all.size(); begin = end) {
    if (interrupted())
      throw Interrupted("eval ppl", fmt::format("stopped after {} of {} tokens", done, result.tokens));
    int64_t tokens = 0;
    for (; end < all.size(); ++end) {
      const int64_t more = all[end].window.end - all[end].window.begin;
      if (end > begin && tokens + more > options.tokens_per_batch) break;
      tokens += more;
    }
    const std::vector<Placed> batch(all.begin() + static_cast<ptrdiff_t>(begin),
                                    all.begin() + static_cast<ptrdiff_t>(end));
    const Tensor losses = score(cx, model, documents, batch);
    const float* loss = losses.data<float>();
    for (const auto& [document, w] : batch)
      for (int64_t t = w.scored_from; t < w.end; ++t, ++loss, ++done) {
        require(std::isfinite(*loss), "eval ppl",
                "the loss of token {} of document {} is {}; are weights and adapter intact?", t, document + 1,
                *loss);
        sum += *loss;
        result.log_probs[document].push_back(-*loss);
      }
    if (options.progress) options.progress(done, result.tokens);
  }
  result.nll = sum / static_cast<double>(result.tokens);
  result.ppl = std::exp(result.nll);
  return result;
}

}  // namespace nibble::eval
