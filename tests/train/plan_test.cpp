#include "train/plan.h"

#include <gmock/gmock.h>

#include "base/json.h"
#include "tests/train/tiny.h"
#include "train/engine.h"

namespace nibble::train {
namespace {

using testing::HasSubstr;

class PredictedPeak : public testing::TestWithParam<std::tuple<const char*, const char*, const char*>> {};

TEST_P(PredictedPeak, IsWhatTheLedgerMeasures) {
  const TempDir dir;
  const auto& [quantize, dtype, checkpointing] = GetParam();
  const Prepared prepared =
      tiny_run(dir.path, {std::string("quantize=") + quantize, std::string("dtype=") + dtype,
                          std::string("gradient_checkpointing=") + checkpointing, "lora_r=16", "per_device_train_batch_size=4", "max_seq_length=64"});
  const StepPlan plan = choose_plan(prepared.files, prepared.recipe, prepared.shape());
  Engine engine(prepared, plan);
  data::StepBatch batch;
  batch.micro.push_back(largest_micro(plan.shape));
  batch.tokens = batch.trained_tokens = plan.shape.tokens;
  for (int64_t step = 1; step <= 2; ++step) EXPECT_EQ(engine.step(batch, step, step, 1e-3).nonfinite, "");
  std::string parts;
  const auto groups = engine.ledger().groups_at_peak();
  for (const auto& [group, bytes] : groups) parts += fmt::format("{} {}\n", group, bytes);
  // Dense weights of the wanted type stay in the file's mapping, which the ledger does not see: weights are compared apart.
  const int64_t weights = groups.count("weights") ? groups.at("weights") : 0, planned_weights = plan.bytes("base") + plan.bytes("scales");
  // The ledger counts in units of 64 bytes, which shows in a model of such small tensors.
  EXPECT_LE(static_cast<double>(weights), 1.05 * static_cast<double>(planned_weights));
  const auto measured = static_cast<double>(engine.ledger().peak_bytes() - weights);
  const auto predicted = static_cast<double>(plan.total() - planned_weights);
  EXPECT_NEAR(predicted / measured, 1.0, 0.05) << memory_table(plan) << parts;
  if (std::string(dtype) == "f32") {
    EXPECT_NEAR(static_cast<double>(planned_weights) / static_cast<double>(weights), 1.0, 0.05) << "a bf16 file is widened whole";
  }
}
INSTANTIATE_TEST_SUITE_P(Recipes, PredictedPeak,
                         testing::Combine(testing::Values("nf4", "none", "int8"), testing::Values("f32", "bf16"),
                                          testing::Values("none", "selective", "block")));

TEST(Plan, CheckpointingPoliciesNeedLessAndLess) {
  const TempDir dir;
  const Prepared prepared = tiny_run(dir.path, {});
  const StepShape shape{512, 8};
  const auto arena = [&](Checkpointing policy) { return plan_step(prepared.files, prepared.recipe, shape, policy); };
  const StepPlan none = arena(Checkpointing::kNone), selective = arena(Checkpointing::kSelective), block = arena(Checkpointing::kBlock);
  EXPECT_GT(none.arena_bytes(), selective.arena_bytes());
  EXPECT_GT(selective.arena_bytes(), block.arena_bytes());
  EXPECT_GT(block.run_flops, none.run_flops);
  EXPECT_GT(none.run_flops, 0.8 * none.useful_flops);
}

TEST(Plan, TakesTheFastestPolicyThatFits) {
  const TempDir dir;
  Prepared prepared = tiny_run(dir.path, {});
  const StepShape shape{512, 8};
  const auto total = [&](Checkpointing policy) { return plan_step(prepared.files, prepared.recipe, shape, policy).total(); };
  const int64_t none = total(Checkpointing::kNone), selective = total(Checkpointing::kSelective), block = total(Checkpointing::kBlock);
  const auto chosen = [&](int64_t limit) {
    prepared.recipe.memory_limit = limit;
    return choose_plan(prepared.files, prepared.recipe, shape).checkpointing;
  };
  EXPECT_EQ(chosen(0), Checkpointing::kNone);
  EXPECT_EQ(chosen(none), Checkpointing::kNone);
  EXPECT_EQ(chosen(none - 1), Checkpointing::kSelective);
  EXPECT_EQ(chosen(selective - 1), Checkpointing::kBlock);
  const std::string refusal = message_of([&] { chosen(block - 1); });
  EXPECT_THAT(refusal, HasSubstr("[memory_limit] this run plans"));
  EXPECT_THAT(refusal, HasSubstr("it fits with per_device_train_batch_size=1 gradient_accumulation_steps=2"));
  set_field(prepared.recipe, "gradient_checkpointing=none");
  EXPECT_THAT(message_of([&] { chosen(none - 1); }), HasSubstr("it fits with gradient_checkpointing=selective"));
  EXPECT_THAT(message_of([&] { chosen(1000); }), HasSubstr("nothing short of a smaller model"));
}

TEST(Plan, TableAndJsonNameEveryGroup) {
  const TempDir dir;
  const Prepared prepared = tiny_run(dir.path, {});
  const StepPlan plan = plan_step(prepared.files, prepared.recipe, prepared.shape(), Checkpointing::kNone);
  const Json json = plan_json(plan);
  int64_t sum = 0;
  for (const char* group : {"base", "scales", "adapter", "gradients", "optimizer", "arena", "scratch"}) {
    EXPECT_THAT(memory_table(plan), HasSubstr(group));
    sum += json["groups"][group].get<int64_t>();
  }
  EXPECT_EQ(sum, json["total_bytes"].get<int64_t>());
  EXPECT_EQ(plan.bytes("adapter"), plan.trainable * 4);
  EXPECT_GT(json["arena"]["logits"].get<int64_t>(), 0);
}

}  // namespace
}  // namespace nibble::train
