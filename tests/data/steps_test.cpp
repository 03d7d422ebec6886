#include "data/steps.h"

#include <gmock/gmock.h>

#include <map>

#include "tests/data/support.h"

namespace nibble::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Example i: `lengths[i]` tokens, all 1000 + i but the first, which is i; the last two are learned.
std::vector<EncodedExample> examples_of(const std::vector<int>& lengths) {
  std::vector<EncodedExample> out;
  for (size_t i = 0; i < lengths.size(); ++i) {
    EncodedExample e;
    e.ids.assign(static_cast<size_t>(lengths[i]), 1000 + static_cast<int32_t>(i));
    e.ids[0] = static_cast<int32_t>(i);
    e.train.assign(e.ids.size(), 0);
    for (size_t k = std::max<size_t>(1, e.ids.size() - 2); k < e.ids.size(); ++k) e.train[k] = 1;
    e.source = "x:" + std::to_string(i + 1);
    out.push_back(std::move(e));
  }
  return out;
}

std::vector<EncodedExample> many() {
  std::vector<int> lengths;
  for (int i = 0; i < 103; ++i) lengths.push_back(2 + (i * 37) % 61);
  return examples_of(lengths);
}

bool same(const StepBatch& a, const StepBatch& b) {
  if (a.micro.size() != b.micro.size() || a.tokens != b.tokens || a.epoch != b.epoch) return false;
  for (size_t i = 0; i < a.micro.size(); ++i)
    if (a.micro[i].ids != b.micro[i].ids || a.micro[i].lengths != b.micro[i].lengths ||
        a.micro[i].labels != b.micro[i].labels || a.micro[i].label_rows != b.micro[i].label_rows)
      return false;
  return true;
}

// How often each example came, by its first token.
std::map<int32_t, int> seen(const StepStream& stream, int64_t first, int64_t last) {
  std::map<int32_t, int> counts;
  for (int64_t s = first; s < last; ++s)
    for (const MicroBatch& m : stream.step(s).micro) {
      size_t at = 0;
      for (const int32_t length : m.lengths) {
        ++counts[m.ids[at]];
        at += static_cast<size_t>(length);
      }
    }
  return counts;
}

TEST(Steps, LabelsAreTheNextTokensThatAreLearned) {
  const auto examples = examples_of({4, 3});
  const auto batches = sequential_batches(examples, 100);
  ASSERT_EQ(batches.size(), 1u);
  EXPECT_THAT(batches[0].ids, ElementsAre(0, 1000, 1000, 1000, 1, 1001, 1001));
  EXPECT_THAT(batches[0].lengths, ElementsAre(4, 3));
  EXPECT_THAT(batches[0].label_rows, ElementsAre(1, 2, 4, 5));
  EXPECT_THAT(batches[0].labels, ElementsAre(1000, 1000, 1001, 1001));
  EXPECT_EQ(sequential_batches(examples, 4).size(), 2u);
}

TEST(Steps, EachExampleComesOnceAnEpoch) {
  const auto examples = many();
  for (const bool packing : {true, false}) {
    const StepStream stream(
        examples, {.batch_size = 3, .accumulation = 2, .packing = packing, .max_seq_length = 64, .seed = 5});
    const int64_t n = stream.steps_per_epoch();
    const auto counts = seen(stream, 0, n);
    EXPECT_EQ(counts.size(), examples.size());
    for (const auto& [example, count] : counts) EXPECT_EQ(count, 1) << example;
    EXPECT_DOUBLE_EQ(stream.step(n - 1).epoch, 1.0);
    EXPECT_GT(stream.step(n).epoch, 1.0);
  }
}

TEST(Steps, AStepIsAFunctionOfItsNumber) {
  const auto examples = many();
  const StepOptions options{
      .batch_size = 2, .accumulation = 2, .packing = true, .max_seq_length = 64, .seed = 9};
  const StepStream forward(examples, options), backward(examples, options);
  const int64_t n = 3 * forward.steps_per_epoch();
  std::vector<StepBatch> steps;
  for (int64_t i = 0; i < n; ++i) steps.push_back(forward.step(i));
  for (int64_t i = n - 1; i >= 0; --i)
    EXPECT_TRUE(same(backward.step(i), steps[static_cast<size_t>(i)])) << i;
  const StepStream fresh(examples, options);
  EXPECT_TRUE(same(fresh.step(n - 1), steps.back()));
  StepOptions other = options;
  other.seed = 10;
  EXPECT_FALSE(same(StepStream(examples, other).step(0), steps[0]));
  // Epochs differ in order.
  EXPECT_NE(steps[0].micro[0].ids, steps[static_cast<size_t>(forward.steps_per_epoch())].micro[0].ids);
}

TEST(Steps, CapacitiesAndTotalsHold) {
  const auto examples = many();
  const StepStream stream(
      examples, {.batch_size = 2, .accumulation = 3, .packing = true, .max_seq_length = 64, .seed = 1});
  for (int64_t s = 0; s < stream.steps_per_epoch(); ++s) {
    const StepBatch b = stream.step(s);
    EXPECT_LE(b.micro.size(), 3u);
    EXPECT_FALSE(b.micro.empty());
    int64_t tokens = 0, labels = 0;
    for (const MicroBatch& m : b.micro) {
      EXPECT_LE(static_cast<int64_t>(m.ids.size()), stream.capacity());
      int64_t sum = 0;
      for (const int32_t length : m.lengths) sum += length;
      EXPECT_EQ(sum, static_cast<int64_t>(m.ids.size()));
      EXPECT_TRUE(std::is_sorted(m.label_rows.begin(), m.label_rows.end()));
      EXPECT_EQ(m.label_rows.size(), m.labels.size());
      for (size_t i = 0; i < m.labels.size(); ++i)
        EXPECT_EQ(m.ids[static_cast<size_t>(m.label_rows[i]) + 1], m.labels[i]);
      tokens += sum;
      labels += static_cast<int64_t>(m.labels.size());
    }
    EXPECT_EQ(b.tokens, tokens);
    EXPECT_EQ(b.trained_tokens, labels);
    EXPECT_GT(labels, 0);
  }
}

TEST(Steps, MostLabelsAreThoseOfTheFullestMicroBatch) {
  const auto examples = many();
  for (const bool packing : {true, false}) {
    const StepOptions options{
        .batch_size = 2, .accumulation = 3, .packing = packing, .max_seq_length = 64, .seed = 4};
    const StepStream stream(examples, options);
    int64_t most = 0;
    for (int64_t s = 0; s < 3 * stream.steps_per_epoch(); ++s) {
      for (const MicroBatch& micro : stream.step(s).micro) most = std::max(most, micro.trained());
      EXPECT_EQ(StepStream(examples, options).most_labels(s + 1), most) << s + 1 << " steps";
    }
  }
}

TEST(Steps, PackingFillsSequences) {
  const auto examples = many();
  StepOptions options{.batch_size = 1, .accumulation = 1, .packing = true, .max_seq_length = 64, .seed = 1};
  const double packed = StepStream(examples, options).fill();
  options.packing = false;
  EXPECT_GT(packed, 0.9);
  EXPECT_LT(StepStream(examples, options).fill(), 0.6);
}

TEST(Steps, WeightsSayHowOftenAnExampleComes) {
  const auto examples = examples_of(std::vector<int>(300, 5));
  std::vector<double> weights(300, 1.0);
  for (size_t i = 0; i < 100; ++i) weights[i] = 2.0;
  for (size_t i = 100; i < 200; ++i) weights[i] = 0.25;
  const StepStream stream(
      examples, weights,
      {.batch_size = 4, .accumulation = 1, .packing = false, .max_seq_length = 5, .seed = 3});
  int doubled = 0, quarter = 0, whole = 0;
  for (const auto& [example, count] : seen(stream, 0, stream.steps_per_epoch()))
    (example < 100 ? doubled : example < 200 ? quarter : whole) += count;
  EXPECT_EQ(doubled, 200);
  EXPECT_EQ(whole, 100);
  EXPECT_NEAR(quarter, 25, 15);
}

TEST(Steps, GroupedByLengthTheLongestComesFirstAndGroupsFall) {
  const auto examples = many();
  StepOptions options{.batch_size = 2, .accumulation = 2, .packing = false, .max_seq_length = 64, .seed = 9};
  const StepStream plain(examples, options);
  options.group_by_length = true;
  const StepStream grouped(examples, options);
  EXPECT_EQ(seen(grouped, 0, grouped.steps_per_epoch()), seen(plain, 0, plain.steps_per_epoch()));
  std::vector<int32_t> lengths;
  for (int64_t s = 0; s < grouped.steps_per_epoch(); ++s)
    for (const MicroBatch& m : grouped.step(s).micro)
      lengths.insert(lengths.end(), m.lengths.begin(), m.lengths.end());
  EXPECT_EQ(lengths[0], *std::max_element(lengths.begin(), lengths.end()));
  // 103 examples, 4 a step: groups of 103 / 16 = 6 steps. Only the swap with the longest may break the order.
  int rises = 0;
  for (size_t i = 1; i < lengths.size(); ++i) rises += i % 24 != 0 && lengths[i] > lengths[i - 1];
  EXPECT_LE(rises, 1);
  EXPECT_THAT(failure([&] {
                StepStream(examples, {.packing = true, .group_by_length = true, .max_seq_length = 64});
              }),
              HasSubstr("packing: false"));
}

TEST(Steps, BadOptionsAreRefused) {
  const auto examples = examples_of({9});
  EXPECT_THAT(failure([&] { StepStream(examples, {.max_seq_length = 8}); }),
              HasSubstr("[x:1] has 9 tokens where max_seq_length is 8"));
  EXPECT_THAT(failure([&] { StepStream(examples, {.batch_size = 0, .max_seq_length = 9}); }),
              HasSubstr("should be at least 1"));
  EXPECT_THAT(failure([&] {
                StepStream(examples, {1.0, 2.0}, {.max_seq_length = 9});
              }),
              HasSubstr("2 weights for 1 examples"));
  const std::vector<EncodedExample> none;
  EXPECT_THAT(failure([&] { StepStream(none, {.max_seq_length = 9}); }),
              HasSubstr("there is no example to train on"));
}

}  // namespace
}  // namespace nibble::data
