// Whole optimizer steps from encoded examples. step(i) is a pure function of the data, the options and i: to
// resume, only the number of the step is needed, and the trained-token total is known before the first
// backward.
#pragma once
#include <mutex>

#include "data/example.h"

namespace nibble::data {

// One packed stream: sequences one after another, none attends to another.
struct MicroBatch {
  std::vector<int32_t> ids;         // [T]
  std::vector<int32_t> lengths;     // of the sequences; Σ = T
  std::vector<int32_t> label_rows;  // rows whose next token is learned, ascending
  std::vector<int32_t> labels;      // that token
  // Of a classifier, whose label_rows are the sequences' numbers and whose labels their classes: the labels
  // as numbers, which a score is compared with, and which of two texts each token is of [T].
  std::vector<float> targets;
  std::vector<int32_t> types;
  // Of an encoder–decoder, whose ids above are what the decoder reads: a source for each sequence, one after
  // another.
  std::vector<int32_t> source_ids, source_lengths;
  int64_t tokens() const { return static_cast<int64_t>(ids.size() + source_ids.size()); }
  int64_t trained() const { return static_cast<int64_t>(label_rows.size()); }
};

struct StepBatch {
  std::vector<MicroBatch> micro;                              // in slot order
  int64_t tokens = 0, source_tokens = 0, trained_tokens = 0;  // all, those of the sources among them
  double epoch = 0;                                           // at the end of this step
};

struct StepOptions {
  int64_t batch_size = 8;  // sequences (packing: bins of max_seq_length tokens) per micro-batch
  int64_t accumulation = 1;
  bool packing = true;           // several short examples share a bin; false: one example per sequence
  bool group_by_length = false;  // without packing: examples of a step are of about one length
  int64_t max_seq_length = 0;
  int64_t max_source_length = 0;  // of a bin's sources; 0: there are none
  uint64_t seed = 42;
};

class StepStream {
 public:
  StepStream(const std::vector<EncodedExample>& examples, std::vector<double> weights_by_example,
             StepOptions options);
  StepStream(const std::vector<EncodedExample>& examples, StepOptions options);
  // Steps of one epoch; the last one may be smaller (never empty).
  int64_t steps_per_epoch() const;
  StepBatch step(int64_t index) const;
  // Most tokens any micro-batch can have: what the plan is made for.
  int64_t capacity() const { return options_.batch_size * options_.max_seq_length; }
  // Most labels of any micro-batch of the first `steps` steps.
  int64_t most_labels(int64_t steps) const;
  // Share of the capacity that tokens fill, over the first epoch.
  double fill() const;

 private:
  struct Layout {
    int64_t epoch = -1;
    std::vector<std::vector<int64_t>> bins;
  };
  const Layout& layout(int64_t epoch) const;
  int64_t steps_of(int64_t epoch) const;

  const std::vector<EncodedExample>& examples_;
  std::vector<double> weights_;
  StepOptions options_;
  mutable std::mutex mutex_;
  mutable Layout cached_[2];                          // of the epochs asked for last
  mutable int64_t start_epoch_ = 0, start_step_ = 0;  // an epoch and the step it begins with
};

// The examples in order, in micro-batches: for evaluation. Sources have a limit of their own.
std::vector<MicroBatch> sequential_batches(const std::vector<EncodedExample>& examples,
                                           int64_t tokens_per_batch, int64_t source_tokens_per_batch = 0);

}  // namespace nibble::data
