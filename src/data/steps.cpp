#include "data/steps.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "base/error.h"
#include "base/rng.h"

namespace nibble::data {
namespace {

// Bins that are open at a time while packing: enough to fill the gaps, few enough that neighbours stay
// neighbours.
constexpr size_t kOpenBins = 64;

void append(MicroBatch& micro, const EncodedExample& e) {
  const auto base = static_cast<int32_t>(micro.ids.size());
  if (e.source_tokens > 0) {
    const auto source_end = e.ids.begin() + e.source_tokens;
    micro.source_ids.insert(micro.source_ids.end(), e.ids.begin(), source_end);
    micro.source_lengths.push_back(e.source_tokens);
    micro.ids.insert(micro.ids.end(), source_end, e.ids.end() - 1);
  } else {
    micro.ids.insert(micro.ids.end(), e.ids.begin(), e.ids.end());
  }
  micro.lengths.push_back(static_cast<int32_t>(e.length()));
  if (e.label) {
    micro.label_rows.push_back(static_cast<int32_t>(micro.lengths.size()) - 1);
    micro.labels.push_back(static_cast<int32_t>(*e.label));
    micro.targets.push_back(static_cast<float>(*e.label));
    for (size_t i = 0; i < e.ids.size(); ++i)
      micro.types.push_back(e.second_begin > 0 && i >= static_cast<size_t>(e.second_begin));
    return;
  }
  const auto first = static_cast<size_t>(e.source_tokens);
  for (size_t i = first + 1; i < e.ids.size(); ++i)
    if (e.train[i] != 0) {
      micro.label_rows.push_back(base + static_cast<int32_t>(i - first) - 1);
      micro.labels.push_back(e.ids[i]);
    }
}

// Transformers' length-grouped order (LengthGroupedSampler), which the QLoRA script trains in: the random
// order is cut into groups of up to 50 steps, each sorted from the longest down, and the longest of all comes
// first, so that too little memory shows at once.
void group_by_length(std::vector<int64_t>& order, int64_t per_step,
                     const std::function<size_t(int64_t)>& length) {
  const auto n = static_cast<int64_t>(order.size());
  const int64_t group = std::clamp<int64_t>(n / (4 * per_step), 1, 50) * per_step;
  const auto longer = [&](int64_t a, int64_t b) { return length(a) > length(b); };
  for (int64_t begin = 0; begin < n; begin += group)
    std::stable_sort(order.begin() + begin, order.begin() + std::min(n, begin + group), longer);
  int64_t first = 0;  // the first of its group is the longest there
  for (int64_t begin = 0; begin < n; begin += group)
    if (longer(order[static_cast<size_t>(begin)], order[static_cast<size_t>(first)])) first = begin;
  std::swap(order[0], order[static_cast<size_t>(first)]);
}

}  // namespace

StepStream::StepStream(const std::vector<EncodedExample>& examples, StepOptions options)
    : StepStream(examples, std::vector<double>(examples.size(), 1.0), options) {}

StepStream::StepStream(const std::vector<EncodedExample>& examples, std::vector<double> weights_by_example,
                       StepOptions options)
    : examples_(examples), weights_(std::move(weights_by_example)), options_(options) {
  require(!examples_.empty(), "data", "there is no example to train on");
  require(weights_.size() == examples_.size(), "data", "{} weights for {} examples", weights_.size(),
          examples_.size());
  require(options_.batch_size >= 1 && options_.accumulation >= 1, "data",
          "batch size and accumulation should be at least 1, got {} and {}", options_.batch_size,
          options_.accumulation);
  require(!options_.group_by_length || !options_.packing, "data", "group_by_length is for packing: false");
  for (const EncodedExample& e : examples_)
    require(e.length() <= options_.max_seq_length && e.source_tokens <= options_.max_source_length, e.source,
            "has {} tokens where max_seq_length is {}", std::max<int64_t>(e.length(), e.source_tokens),
            options_.max_seq_length);
}

// The examples of an epoch in its own random order, in bins of up to max_seq_length tokens. An example of
// weight w comes floor(w) times and once more with probability w - floor(w).
const StepStream::Layout& StepStream::layout(int64_t epoch) const {
  Layout& slot = cached_[epoch % 2];
  if (slot.epoch == epoch) return slot;
  Layout fresh;
  fresh.epoch = epoch;
  const Rng draw(options_.seed, stream_id("data.weights") + static_cast<uint64_t>(epoch));
  std::vector<int64_t> chosen;
  for (size_t i = 0; i < examples_.size(); ++i) {
    auto times = static_cast<int64_t>(std::floor(weights_[i]));
    if (draw.uniform_double(i) < weights_[i] - std::floor(weights_[i])) ++times;
    chosen.insert(chosen.end(), static_cast<size_t>(times), static_cast<int64_t>(i));
  }
  if (chosen.empty()) chosen.push_back(0);
  auto order = Rng(options_.seed, stream_id("data.order") + static_cast<uint64_t>(epoch))
                   .permutation(static_cast<int64_t>(chosen.size()));

  const auto length_at = [&](int64_t at) {
    return examples_[static_cast<size_t>(chosen[static_cast<size_t>(at)])].ids.size();
  };
  if (options_.group_by_length)
    group_by_length(order, options_.batch_size * options_.accumulation, length_at);

  struct OpenBin {
    size_t bin;
    int64_t room, source_room;
  };
  std::vector<OpenBin> open;  // oldest first
  for (const int64_t at : order) {
    const int64_t example = chosen[static_cast<size_t>(at)];
    const EncodedExample& e = examples_[static_cast<size_t>(example)];
    const int64_t length = e.length(), source = e.source_tokens;
    if (options_.packing) {
      // Best fit among the open bins; ties go to the oldest.
      auto best = open.end();
      for (auto it = open.begin(); it != open.end(); ++it)
        if (it->room >= length && it->source_room >= source && (best == open.end() || it->room < best->room))
          best = it;
      if (best != open.end()) {
        fresh.bins[best->bin].push_back(example);
        best->room -= length;
        best->source_room -= source;
        if (best->room < (source > 0 ? 1 : 2)) open.erase(best);
        continue;
      }
      if (open.size() == kOpenBins) open.erase(open.begin());
      open.push_back(
          {fresh.bins.size(), options_.max_seq_length - length, options_.max_source_length - source});
    }
    fresh.bins.push_back({example});
  }
  slot = std::move(fresh);
  return slot;
}

int64_t StepStream::steps_of(int64_t epoch) const {
  const auto bins = static_cast<int64_t>(layout(epoch).bins.size());
  const int64_t per_step = options_.batch_size * options_.accumulation;
  return (bins + per_step - 1) / per_step;
}

int64_t StepStream::steps_per_epoch() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return steps_of(0);
}

int64_t StepStream::most_labels(int64_t steps) const {
  std::vector<int64_t> labels;  // by example
  for (const EncodedExample& e : examples_) labels.push_back(e.label ? 1 : e.trained());
  const std::lock_guard<std::mutex> lock(mutex_);
  int64_t most = 0;
  for (int64_t epoch = 0, done = 0; done < steps; done += steps_of(epoch++)) {
    const auto& bins = layout(epoch).bins;
    const int64_t per_step = options_.batch_size * options_.accumulation,
                  end = std::min(static_cast<int64_t>(bins.size()), (steps - done) * per_step);
    // A step may end with a smaller micro-batch only where the epoch ends.
    for (int64_t begin = 0; begin < end; begin += options_.batch_size) {
      int64_t sum = 0;
      for (int64_t bin = begin; bin < std::min(end, begin + options_.batch_size); ++bin)
        for (const int64_t e : bins[static_cast<size_t>(bin)]) sum += labels[static_cast<size_t>(e)];
      most = std::max(most, sum);
    }
  }
  return most;
}

StepBatch StepStream::step(int64_t index) const {
  require(index >= 0, "data", "step {} does not exist", index);
  const std::lock_guard<std::mutex> lock(mutex_);
  const int64_t per_step = options_.batch_size * options_.accumulation;
  // Epochs may differ by a few bins, so steps are counted through; both layouts in use stay cached.
  int64_t epoch = start_epoch_, first = start_step_;
  if (index < first) epoch = first = 0;
  while (index >= first + steps_of(epoch)) first += steps_of(epoch++);
  start_epoch_ = epoch;
  start_step_ = first;

  const auto& bins = layout(epoch).bins;
  const auto total = static_cast<int64_t>(bins.size());
  int64_t bin = (index - first) * per_step;
  const int64_t end = std::min(total, bin + per_step);
  StepBatch batch;
  batch.epoch = static_cast<double>(epoch) + static_cast<double>(end) / static_cast<double>(total);
  while (bin < end) {
    MicroBatch micro;
    for (int64_t i = 0; i < options_.batch_size && bin < end; ++i, ++bin)
      for (const int64_t e : bins[static_cast<size_t>(bin)]) append(micro, examples_[static_cast<size_t>(e)]);
    batch.tokens += micro.tokens();
    batch.source_tokens += static_cast<int64_t>(micro.source_ids.size());
    batch.trained_tokens += micro.trained();
    batch.micro.push_back(std::move(micro));
  }
  return batch;
}

double StepStream::fill() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  int64_t tokens = 0;
  const auto& bins = layout(0).bins;
  for (const auto& bin : bins)
    for (const int64_t e : bin) tokens += examples_[static_cast<size_t>(e)].length();
  return static_cast<double>(tokens) /
         static_cast<double>(static_cast<int64_t>(bins.size()) * options_.max_seq_length);
}

std::vector<MicroBatch> sequential_batches(const std::vector<EncodedExample>& examples,
                                           int64_t tokens_per_batch, int64_t source_tokens_per_batch) {
  std::vector<MicroBatch> batches;
  for (const EncodedExample& e : examples) {
    const auto over = [](const std::vector<int32_t>& ids, int64_t more, int64_t most) {
      return static_cast<int64_t>(ids.size()) + more > most;
    };
    if (batches.empty() || over(batches.back().ids, e.length(), tokens_per_batch) ||
        (e.source_tokens > 0 && over(batches.back().source_ids, e.source_tokens, source_tokens_per_batch)))
      batches.emplace_back();
    append(batches.back(), e);
  }
  return batches;
}

}  // namespace nibble::data
