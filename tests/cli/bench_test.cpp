// nibble bench from outside, on a model of a few thousand parameters: what it reports, not how fast it is.
#include <gmock/gmock.h>

#include "base/json.h"
#include "tests/cli/run_program.h"

namespace nibble::cli {
namespace {

using ::testing::HasSubstr;

const std::string kModel = NIBBLE_SOURCE_DIR "/tests/goldens/tiny_llama";

std::vector<std::string> bench(const std::vector<std::string>& more) {
  std::vector<std::string> words = {
      "bench", "--model", kModel, "per_device_train_batch_size=2", "max_seq_length=16", "lora_r=4"};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

const Json* find(const Json& rows, const std::string& name) {
  for (const Json& row : rows)
    if (row["name"] == name) return &row;
  return nullptr;
}

TEST(BenchProgram, EveryOperationOfAStepWithItsFlopsAndItsLimit) {
  const Ran ran = run_program(bench({"--rounds", "1", "--json"}));
  ASSERT_EQ(ran.code, 0) << ran.err;
  const Json json = parse_json(ran.out, "stdout");
  EXPECT_EQ(json["tokens"], 32);
  EXPECT_EQ(json["trained_tokens"], 30);  // the first of each sequence is not predicted
  EXPECT_GT(json["limit_share"], 0);
  EXPECT_EQ(json["limit_share_rounds"].size(), 1U);
  EXPECT_TRUE(json["synthetic"].get<bool>());
  double flops = 0, seconds = 0;
  for (const Json& row : json["operations"]) {
    flops += row["flops"].get<double>();
    seconds += row["seconds"].get<double>();
  }
  EXPECT_NEAR(flops, json["flops_per_step"].get<double>(), 1e-6 * flops);
  EXPECT_GT(seconds, 0);
  for (const char* name :
       {"embedding", "linear", "linear, backward", "rms_norm", "rope", "attention", "attention, backward",
        "gated, backward", "head_cross_entropy", "norm, clipping, optimizer"})
    EXPECT_NE(find(json["operations"], name), nullptr) << name;
  const Json* linear = find(json["operations"], "linear");
  ASSERT_NE(linear, nullptr);
  EXPECT_GT((*linear)["limit_seconds"], 0);
  const Json* product = find(json["kernels"], "low_rank_matmul [32, 64] · 112 with 4");
  ASSERT_NE(product, nullptr);
  EXPECT_EQ((*product)["calls"], 6);  // gate and up of two layers, and the way back of down
  EXPECT_EQ((*product)["flops"], 6 * 2 * 32 * (64 * 112 + 4 * (64 + 112)));
}

TEST(BenchProgram, TablesForPeople) {
  const Ran ran = run_program(bench({"--rounds", "1", "gradient_checkpointing=block"}));
  ASSERT_EQ(ran.code, 0) << ran.err;
  for (const char* part :
       {"GFLOP/s in ", " products, ", "tokens/s", "of the product limit", "attention, backward", "resident"})
    EXPECT_THAT(ran.out, HasSubstr(part));
}

TEST(BenchProgram, RefusesWhatCannotBe) {
  const Ran none = run_program(bench({"--rounds", "0"}));
  EXPECT_EQ(none.code, 2);
  EXPECT_THAT(none.err, HasSubstr("--rounds"));
  const Ran model = run_program({"bench"});
  EXPECT_EQ(model.code, 2);
  EXPECT_THAT(model.err, HasSubstr("model"));
  const Ran generation = run_program({"bench", "--generation"});
  EXPECT_EQ(generation.code, 2);
  EXPECT_THAT(generation.err, HasSubstr("--model is missing"));
}

}  // namespace
}  // namespace nibble::cli
