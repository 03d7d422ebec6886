#include "eval/sampler.h"

#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "tests/eval/support.h"

namespace nibble::eval {
namespace {

using ::testing::HasSubstr;

SamplingOptions plain(double temperature = 1) { return {.temperature = temperature, .top_p = 1}; }

TEST(Sampler, KeepsWhatTransformersKeeps) {
  const std::string path = NIBBLE_SOURCE_DIR "/tests/goldens/sampler/cases.json";
  const Json golden = parse_json(read_file(path), path);
  ASSERT_GE(golden["cases"].size(), 8u);
  for (const Json& c : golden["cases"]) {
    SCOPED_TRACE(c["options"].dump());
    const auto logits = c["logits"].get<std::vector<float>>();
    const auto history = c["history"].get<std::vector<int32_t>>();
    const Json& o = c["options"];
    const SamplingOptions options{.temperature = o["temperature"].get<double>(),
                                  .top_p = o.value("top_p", 1.0),
                                  .top_k = o.value("top_k", 0),
                                  .repetition_penalty = o.value("repetition_penalty", 1.0)};
    const std::vector<Candidate> kept = distribution(logits, history, options);
    EXPECT_EQ(kept.size(), c["probabilities"].size());
    for (const Candidate& k : kept) {
      const auto expected = c["probabilities"].find(std::to_string(k.id));
      ASSERT_NE(expected, c["probabilities"].end()) << "token " << k.id;
      EXPECT_NEAR(k.probability, expected->get<double>(), 1e-6) << "token " << k.id;  // its scores are f32
    }
  }
}

TEST(Sampler, DrawsFollowTheDistribution) {
  const std::vector<float> logits{0.5f, -1.0f, 2.0f, 1.0f, 0.0f};
  const std::vector<Candidate> expected = distribution(logits, {}, plain());
  std::vector<int> count(logits.size());
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i)
    ++count[static_cast<size_t>(draw_token(logits, {}, plain(), 0, static_cast<uint64_t>(i)))];
  double chi_square = 0;
  for (const Candidate& c : expected) {
    const double mean = c.probability * kDraws;
    chi_square += std::pow(count[static_cast<size_t>(c.id)] - mean, 2) / mean;
  }
  EXPECT_LT(chi_square, 18.5);  // 4 degrees of freedom: exceeded once in a thousand
}

TEST(Sampler, SameSeedSameTokenOtherSeedOtherTokens) {
  std::vector<float> logits(1000);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = std::sin(static_cast<float>(i));
  SamplingOptions a = plain(), b = plain();
  b.seed = 43;
  int different_seed = 0, different_stream = 0;
  for (uint64_t step = 0; step < 50; ++step) {
    const int32_t token = draw_token(logits, {}, a, 0, step);
    EXPECT_EQ(token, draw_token(logits, {}, a, 0, step));
    different_seed += token != draw_token(logits, {}, b, 0, step);
    different_stream += token != draw_token(logits, {}, a, 1, step);
  }
  EXPECT_GT(different_seed, 40);
  EXPECT_GT(different_stream, 40);
}

TEST(Sampler, GreedyTakesTheLowestIdAmongEquals) {
  const std::vector<float> logits{1, 3, 3, 2};
  EXPECT_EQ(draw_token(logits, {}, plain(0), 0, 0), 1);
  SamplingOptions penalized = plain(0);
  penalized.repetition_penalty = 1.1;
  const std::vector<int32_t> history{1, 1, 1};
  EXPECT_EQ(draw_token(logits, history, penalized, 0, 0), 2);
}

TEST(Sampler, PenaltyCountsATokenOnceAndPushesNegativeLogitsDown) {
  const std::vector<float> logits{2, -2, 0};
  SamplingOptions options = plain();
  options.repetition_penalty = 2;
  const std::vector<int32_t> history{0, 0, 0, 1, 1};
  const std::vector<Candidate> kept = distribution(logits, history, options);
  EXPECT_NEAR(kept[0].probability / kept[2].probability, std::exp(1.0), 1e-12);
  EXPECT_NEAR(kept[1].probability / kept[2].probability, std::exp(-4.0), 1e-12);
}

TEST(Sampler, NucleusAcrossPiecesOfTheSort) {
  // 2,000 equal tokens: half of the mass is the first thousand ids, more than one sorted piece holds.
  const std::vector<float> logits(2000, 0.25f);
  SamplingOptions options = plain();
  options.top_p = 0.5;
  const std::vector<Candidate> kept = distribution(logits, {}, options);
  ASSERT_EQ(kept.size(), 1000u);
  for (size_t i = 0; i < kept.size(); ++i) EXPECT_EQ(kept[i].id, static_cast<int32_t>(i));
}

TEST(Sampler, MaskedTokensAreNeverDrawn) {
  const float out = -std::numeric_limits<float>::infinity();
  const std::vector<float> logits{out, 0, out, out};
  for (uint64_t step = 0; step < 20; ++step) EXPECT_EQ(draw_token(logits, {}, plain(), 0, step), 1);
}

TEST(Sampler, RefusesDamagedLogits) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  EXPECT_THAT(message_of([&] {
                draw_token(std::vector<float>{0, nan}, {}, plain(), 0, 0);
              }),
              HasSubstr("nan as the logit of token 1"));
  EXPECT_THAT(message_of([&] {
                draw_token(std::vector<float>{inf, 0}, {}, plain(0), 0, 0);
              }),
              HasSubstr("inf as the logit of token 0"));
  EXPECT_THAT(message_of([&] {
                draw_token(std::vector<float>{-inf, -inf}, {}, plain(), 0, 0);
              }),
              HasSubstr("no finite logit among 2"));
}

TEST(Sampler, RefusesOptionsOutOfRange) {
  auto message = [](SamplingOptions o) { return message_of([&] { o.check(); }); };
  EXPECT_THAT(message({.temperature = -1}), HasSubstr("[--temperature] expected a number from 0"));
  EXPECT_THAT(message({.top_p = 0}), HasSubstr("[--top-p]"));
  EXPECT_THAT(message({.top_p = 1.5}), HasSubstr("got 1.5"));
  EXPECT_THAT(message({.top_k = -3}), HasSubstr("[--top-k]"));
  EXPECT_THAT(message({.repetition_penalty = 0}), HasSubstr("[--repetition-penalty]"));
  EXPECT_EQ(message({}), "no error");
}

}  // namespace
}  // namespace nibble::eval
