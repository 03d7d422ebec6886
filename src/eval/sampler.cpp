#include "eval/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/rng.h"

namespace nibble::eval {
namespace {

void check_range(bool ok, const char* name, const char* expected, double got) {
  if (!ok) throw UsageError(name, fmt::format("expected {}, got {}", expected, got));
}

std::vector<double> penalized(std::span<const float> logits, std::span<const int32_t> history,
                              double penalty) {
  std::vector<double> scores(logits.begin(), logits.end());
  if (penalty == 1) return scores;
  for (const int32_t id : history) {
    if (id < 0 || static_cast<size_t>(id) >= scores.size()) continue;
    const double plain =
        logits[static_cast<size_t>(id)];  // not scores[]: a token counts once however often it came
    scores[static_cast<size_t>(id)] = plain < 0 ? plain * penalty : plain / penalty;
  }
  return scores;
}

void check_logits(std::span<const float> logits) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const auto fine = [](float x) { return x < kInfinity; };
  int bad = 0, any = 0;
  for (const float x : logits) {
    bad |= static_cast<int>(!fine(x));
    any |= static_cast<int>(x > -kInfinity);
  }
  if (bad != 0) {
    const auto first = std::find_if_not(logits.begin(), logits.end(), fine);
    fail("sampler", "the model gave {} as the logit of token {}; its weights or the adapter are damaged",
         *first, first - logits.begin());
  }
  require(any != 0, "sampler", "the model gave no finite logit among {}", logits.size());
}

// The first of the largest; at least one is finite and none is NaN.
int32_t largest_of(std::span<const float> logits) {
  constexpr size_t kLanes = 32;  // largest values side by side, which the compiler keeps in vectors
  float most[kLanes];
  std::fill_n(most, kLanes, -std::numeric_limits<float>::infinity());
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes)
    for (size_t lane = 0; lane < kLanes; ++lane)
      most[lane] = logits[i + lane] > most[lane] ? logits[i + lane] : most[lane];
  float largest = *std::max_element(most, most + kLanes);
  for (; i < logits.size(); ++i) largest = std::max(largest, logits[i]);
  return static_cast<int32_t>(std::find(logits.begin(), logits.end(), largest) - logits.begin());
}

bool before(const Candidate& a, const Candidate& b) {
  return a.probability != b.probability ? a.probability > b.probability : a.id < b.id;
}

// Keeps the shortest prefix, most probable first, that reaches p of the total. Sorting happens in growing
// pieces, as the nucleus is nearly always a tiny part of the vocabulary.
void keep_nucleus(std::vector<Candidate>& items, double p) {
  double total = 0, reached = 0;
  for (const Candidate& c : items) total += c.probability;
  size_t kept = 0;
  for (size_t piece = 256; kept < items.size(); piece *= 4) {
    const size_t end = std::min(items.size(), kept + piece);
    const auto begin = items.begin() + static_cast<ptrdiff_t>(kept),
               middle = items.begin() + static_cast<ptrdiff_t>(end);
    if (end < items.size()) std::nth_element(begin, middle, items.end(), before);
    std::sort(begin, middle, before);
    for (; kept < end; ++kept) {
      if (kept > 0 && reached >= p * total) {
        items.resize(kept);
        return;
      }
      reached += items[kept].probability;
    }
  }
}

}  // namespace

void SamplingOptions::check() const {
  check_range(temperature >= 0 && std::isfinite(temperature), "--temperature", "a number from 0 (greedy) up",
              temperature);
  check_range(top_p > 0 && top_p <= 1, "--top-p", "a number above 0 and at most 1 (off)", top_p);
  check_range(top_k >= 0, "--top-k", "a number from 0 (off) up", static_cast<double>(top_k));
  check_range(repetition_penalty > 0 && std::isfinite(repetition_penalty), "--repetition-penalty",
              "a number above 0 (1 is off)", repetition_penalty);
}

std::vector<Candidate> distribution(std::span<const float> logits, std::span<const int32_t> history,
                                    const SamplingOptions& options) {
  check_logits(logits);
  const std::vector<double> scores = penalized(logits, history, options.repetition_penalty);
  double least = -std::numeric_limits<double>::infinity();  // top-k: scores below this are out
  if (options.top_k > 0 && static_cast<size_t>(options.top_k) < scores.size()) {
    std::vector<double> order = scores;
    const auto kth = order.begin() + (options.top_k - 1);
    std::nth_element(order.begin(), kth, order.end(), std::greater<>());
    least = *kth;
  }
  const double largest = *std::max_element(scores.begin(), scores.end());
  std::vector<Candidate> items;
  items.reserve(scores.size());
  for (size_t i = 0; i < scores.size(); ++i)
    if (scores[i] >= least && std::isfinite(scores[i]))
      items.push_back({static_cast<int32_t>(i), std::exp((scores[i] - largest) / options.temperature)});
  if (options.top_p < 1)
    keep_nucleus(items, options.top_p);
  else if (options.top_k > 0)
    std::sort(items.begin(), items.end(), before);
  double total = 0;
  for (const Candidate& c : items) total += c.probability;
  for (Candidate& c : items) c.probability /= total;
  return items;
}

int32_t draw_token(std::span<const float> logits, std::span<const int32_t> history,
                   const SamplingOptions& options, uint64_t stream, uint64_t step) {
  if (options.greedy()) {
    check_logits(logits);
    if (options.repetition_penalty == 1) return largest_of(logits);
    const std::vector<double> scores = penalized(logits, history, options.repetition_penalty);
    return static_cast<int32_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
  }
  const std::vector<Candidate> items = distribution(logits, history, options);
  double left = Rng(options.seed, stream_id("sampler") + stream).uniform_double(step);
  for (const Candidate& c : items) {
    left -= c.probability;
    if (left < 0) return c.id;
  }
  return items.back().id;  // rounding left a sliver
}

}  // namespace nibble::eval
