#include "eval/perplexity.h"

#include <gmock/gmock.h>

#include <cmath>
#include <filesystem>

#include "backend/kernels/matvec.h"
#include "base/file.h"
#include "base/process.h"
#include "tests/eval/support.h"

namespace nibble::eval {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(StridedWindows, FollowTheProtocolOfTransformers) {
  EXPECT_THAT(strided_windows(10, 4, 2),
              ElementsAre(Window{0, 4, 1}, Window{2, 6, 4}, Window{4, 8, 6}, Window{6, 10, 8}));
  EXPECT_THAT(strided_windows(9, 4, 3), ElementsAre(Window{0, 4, 1}, Window{3, 7, 4}, Window{6, 9, 7}));
  EXPECT_THAT(strided_windows(4, 8, 4), ElementsAre(Window{0, 4, 1}));
  EXPECT_THAT(strided_windows(1, 8, 4), ElementsAre());
  EXPECT_THAT(strided_windows(0, 8, 4), ElementsAre());
}

TEST(StridedWindows, StrideOfTheWholeContextLosesNoToken) {
  EXPECT_THAT(strided_windows(10, 4, 4), ElementsAre(Window{0, 4, 1}, Window{3, 7, 4}, Window{6, 10, 7}));
}

TEST(StridedWindows, EveryTokenIsScoredOnceFromWithinItsWindow) {
  for (int64_t tokens = 0; tokens < 30; ++tokens)
    for (int64_t context = 2; context < 12; ++context)
      for (int64_t stride = 1; stride <= context; ++stride) {
        int64_t next = 1;
        for (const Window& w : strided_windows(tokens, context, stride)) {
          ASSERT_EQ(w.scored_from, next);
          ASSERT_GT(w.scored_from, w.begin);
          ASSERT_LE(w.end - w.begin, context);
          ASSERT_GT(w.end, w.scored_from);
          next = w.end;
        }
        ASSERT_EQ(next, std::max<int64_t>(1, tokens));
      }
}

class StoriesPerplexity : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!have_stories()) GTEST_SKIP() << "needs " << kStories;
  }
};

std::vector<int32_t> some_ids(const Loaded& loaded) {
  return loaded.tokenizer->encode(
      "Once upon a time, there was a little girl named Lily. She loved to play outside in the park.");
}

// Batched windows against one forward a window with plain logits.
TEST_F(StoriesPerplexity, BatchedWindowsEqualPlainLogits) {
  Loaded loaded(kStories);
  const std::vector<std::vector<int32_t>> documents{some_ids(loaded), {1, 403, 407}, {1}, {}};
  const PerplexityOptions options{.context = 12, .stride = 5, .tokens_per_batch = 30, .progress = {}};
  const Perplexity result = perplexity(loaded.context, *loaded.model, documents, options);
  EXPECT_EQ(result.documents, 4);
  EXPECT_EQ(result.tokens, static_cast<int64_t>(documents[0].size() - 1 + 2));
  double sum = 0;
  for (size_t d = 0; d < documents.size(); ++d) {
    std::vector<float> expected;
    for (const Window& w : strided_windows(static_cast<int64_t>(documents[d].size()), 12, 5)) {
      const std::vector<int32_t> ids(documents[d].begin() + w.begin, documents[d].begin() + w.end);
      const auto input = nn::packed_input(host_allocator(), ids, {static_cast<int32_t>(ids.size())});
      const Tensor logits =
          loaded.model->logits(loaded.context, loaded.model->forward(loaded.context, input, nullptr), {});
      for (int64_t t = w.scored_from; t < w.end; ++t) {
        const float* row = logits.data<float>() + (t - 1 - w.begin) * logits.size(1);
        double total = 0;
        for (int64_t v = 0; v < logits.size(1); ++v) total += std::exp(static_cast<double>(row[v]));
        expected.push_back(static_cast<float>(row[documents[d][static_cast<size_t>(t)]] - std::log(total)));
        sum -= expected.back();
      }
    }
    ASSERT_EQ(result.log_probs[d].size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i)
      EXPECT_NEAR(result.log_probs[d][i], expected[i], 1e-4) << d << " " << i;
  }
  EXPECT_NEAR(result.nll, sum / static_cast<double>(result.tokens), 1e-5);
  EXPECT_DOUBLE_EQ(result.ppl, std::exp(result.nll));
}

TEST_F(StoriesPerplexity, RefusesWhatCannotBeMeasured) {
  Loaded loaded(kStories);
  auto message = [&](const std::vector<std::vector<int32_t>>& documents, int64_t context, int64_t stride) {
    return message_of([&] {
      perplexity(loaded.context, *loaded.model, documents,
                 {.context = context, .stride = stride, .progress = {}});
    });
  };
  EXPECT_THAT(message({{1, 2}}, 1, 1),
              HasSubstr("[--context] expected 2 to 512 tokens (what the model was made for), got 1"));
  EXPECT_THAT(message({{1, 2}}, 513, 1), HasSubstr("got 513"));
  EXPECT_THAT(message({{1, 2}}, 64, 65),
              HasSubstr("[--stride] expected 1 to the context of 64 tokens, got 65"));
  EXPECT_THAT(message({{1}, {}}, 64, 32),
              HasSubstr("nothing to predict: 2 documents of at most one token each"));
  EXPECT_THAT(message({}, 64, 32), HasSubstr("nothing to predict"));
}

TEST_F(StoriesPerplexity, CtrlCStopsIt) {
  Loaded loaded(kStories);
  set_interrupted(true);
  EXPECT_THROW(perplexity(loaded.context, *loaded.model, {{1, 2, 3}}, {}), Interrupted);
  set_interrupted(false);
}

// Generation rounds the inputs of stored blocks to 8 bits: on this text that costs about 2 % of perplexity.
TEST(RoundedInputs, CostLittlePerplexityOnRealText) {
  const std::string smol = NIBBLE_SOURCE_DIR "/build/models/SmolLM2-135M-Instruct.gguf";
  if (!std::filesystem::exists(smol)) GTEST_SKIP() << "needs " << smol << " (./dev demo fetches it)";
  Loaded loaded(smol, "stored");
  set_threads(0);
  const std::vector<int32_t> ids = loaded.tokenizer->encode(read_file(NIBBLE_SOURCE_DIR "/LICENSE"));
  PerplexityOptions options;
  options.context = 512;
  autograd::Context context(loaded.stream, host_allocator(), kBF16);
  const double exact = perplexity(context, *loaded.model, {ids}, options).ppl;
  backend::GroupedWeights grouped;
  context.generation = &grouped;
  const double rounded = perplexity(context, *loaded.model, {ids}, options).ppl;
  EXPECT_NE(rounded, exact);
  EXPECT_NEAR(rounded / exact, 1, 0.03) << exact << " and " << rounded;
}

}  // namespace
}  // namespace nibble::eval
