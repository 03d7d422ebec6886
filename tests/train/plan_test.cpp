#include "train/plan.h"

#include <gmock/gmock.h>

#include "base/json.h"
#include "tests/train/tiny.h"
#include "train/device_table.h"
#include "train/engine.h"

namespace nibble::train {
namespace {

using testing::HasSubstr;

// The plan's groups against what the ledger of a real engine measures over two of the largest steps.
void expect_predicted_peak(const Prepared& prepared) {
  const StepPlan plan = choose_plan(prepared.files, prepared.recipe, prepared.shape());
  Engine engine(prepared, plan);
  data::StepBatch batch;
  batch.micro.push_back(largest_micro(plan.shape));
  batch.tokens = batch.trained_tokens = plan.shape.tokens;
  for (int64_t step = 1; step <= 2; ++step) EXPECT_EQ(engine.step(batch, step, step, 1e-3).nonfinite, "");
  std::string parts;
  const auto groups = engine.ledger().groups_at_peak();
  for (const auto& [group, bytes] : groups) parts += fmt::format("{} {}\n", group, bytes);
  // Dense weights of the wanted type stay in the file's mapping, which the ledger does not see: weights are
  // compared apart.
  const int64_t weights = groups.count("weights") ? groups.at("weights") : 0,
                planned_weights = plan.bytes("base") + plan.bytes("scales");
  // The ledger counts in units of 64 bytes, which shows in a model of such small tensors.
  EXPECT_LE(static_cast<double>(weights), 1.05 * static_cast<double>(planned_weights));
  // Buffers that belong to threads are no part of the ledger: tests/backend/workspace_test.cpp.
  const auto measured = static_cast<double>(engine.ledger().peak_bytes() - weights);
  const auto predicted = static_cast<double>(plan.total() - planned_weights - plan.thread_bytes());
  EXPECT_LE(groups.at("scratch"), plan.bytes("scratch") - plan.thread_bytes() + 4 * 64)
      << "a kernel asked for more than was reserved";
  EXPECT_NEAR(predicted / measured, 1.0, 0.05) << memory_table(plan) << parts;
  if (prepared.recipe.dtype == "f32" && weights > 0) {
    EXPECT_NEAR(static_cast<double>(planned_weights) / static_cast<double>(weights), 1.0, 0.05)
        << "a bf16 file is widened whole";
  }
}

class PredictedPeak : public testing::TestWithParam<std::tuple<const char*, const char*, const char*>> {};

TEST_P(PredictedPeak, IsWhatTheLedgerMeasures) {
  const TempDir dir;
  const auto& [quantize, dtype, checkpointing] = GetParam();
  expect_predicted_peak(
      tiny_run(dir.path, {std::string("quantize=") + quantize, std::string("dtype=") + dtype,
                          std::string("gradient_checkpointing=") + checkpointing, "lora_r=16",
                          "per_device_train_batch_size=4", "max_seq_length=64"}));
}

// Rank, batch, length, optimizer and method, one or two at a time.
class PredictedPeakOf : public testing::TestWithParam<std::vector<std::string>> {};

TEST_P(PredictedPeakOf, IsWhatTheLedgerMeasures) {
  const TempDir dir;
  std::vector<std::string> assignments = {"dtype=f32", "lora_r=8", "per_device_train_batch_size=2",
                                          "max_seq_length=64"};
  assignments.insert(assignments.end(), GetParam().begin(), GetParam().end());
  expect_predicted_peak(tiny_run(dir.path, assignments));
}
INSTANTIATE_TEST_SUITE_P(
    Recipes, PredictedPeakOf,
    testing::Values(std::vector<std::string>{"lora_r=2"}, std::vector<std::string>{"lora_r=32"},
                    std::vector<std::string>{"per_device_train_batch_size=1"},
                    std::vector<std::string>{"per_device_train_batch_size=8"},
                    std::vector<std::string>{"max_seq_length=32", "gradient_checkpointing=block"},
                    std::vector<std::string>{"max_seq_length=128"}, std::vector<std::string>{"optim=adamw"},
                    std::vector<std::string>{"optim=adamw_8bit"},
                    std::vector<std::string>{"optim=paged_adamw_8bit"}, std::vector<std::string>{"optim=sgd"},
                    std::vector<std::string>{"optim=lion"},
                    std::vector<std::string>{"quantize=int8", "lora_dropout=0.1"},
                    std::vector<std::string>{"quantize=fp4", "double_quant=false"},
                    std::vector<std::string>{"method=full", "quantize=none"},
                    std::vector<std::string>{"method=full", "quantize=none", "optim=adamw_8bit",
                                             "gradient_checkpointing=block"},
                    std::vector<std::string>{"target_modules=q_proj,v_proj",
                                             "gradient_checkpointing=selective"}));

INSTANTIATE_TEST_SUITE_P(Recipes, PredictedPeak,
                         testing::Combine(testing::Values("nf4", "none", "int8"),
                                          testing::Values("f32", "bf16"),
                                          testing::Values("none", "selective", "block")));

TEST(Plan, LogitsAreOfNoMoreRowsThanAMicroBatchHasLabels) {
  EXPECT_EQ(head_chunk_rows(50'000, {.tokens = 256}),
            head_chunk_rows(50'000, {.tokens = 256, .labels = 256}));
  EXPECT_EQ(head_chunk_rows(50'000, {.tokens = 256, .labels = 145}), 145);
  EXPECT_EQ(head_chunk_rows(50'000, {.tokens = 2048, .labels = 1000}),
            head_chunk_rows(50'000, {.tokens = 2048}));
  const TempDir dir;
  const Prepared prepared = tiny_run(dir.path, {});
  const auto logits = [&](int64_t labels) {
    const StepShape shape{.tokens = 512, .sequences = 8, .labels = labels};
    return plan_step(prepared.files, prepared.recipe, shape, Checkpointing::kBlock).arena_rows[1].bytes;
  };
  EXPECT_EQ(logits(0), logits(512));
  EXPECT_EQ(logits(0), 4 * logits(128));
}

TEST(Plan, CheckpointingPoliciesNeedLessAndLess) {
  const TempDir dir;
  const Prepared prepared = tiny_run(dir.path, {});
  const StepShape shape{512, 8};
  const auto arena = [&](Checkpointing policy) {
    return plan_step(prepared.files, prepared.recipe, shape, policy);
  };
  const StepPlan none = arena(Checkpointing::kNone), selective = arena(Checkpointing::kSelective),
                 block = arena(Checkpointing::kBlock);
  EXPECT_GT(none.arena_bytes(), selective.arena_bytes());
  EXPECT_GT(selective.arena_bytes(), block.arena_bytes());
  EXPECT_GT(block.cost.flops(), none.cost.flops());
  EXPECT_GT(none.cost.flops(), 0.8 * none.useful_flops);
  const MachineSpeed slow{1e9, 1e9}, fast{2e9, 2e9};
  EXPECT_NEAR(none.cost.seconds(slow), 2 * none.cost.seconds(fast), 1e-9);
  EXPECT_GT(block.cost.seconds(slow), none.cost.seconds(slow));
  EXPECT_GT(none.cost.seconds(slow), none.cost.flops() / 2e9) << "integers are at most twice as fast";
  EXPECT_THAT(time_line(none, 1, slow), HasSubstr("a step of 512 tokens"));
}

TEST(Plan, TakesTheFastestPolicyThatFits) {
  const TempDir dir;
  Prepared prepared = tiny_run(dir.path, {});
  const StepShape shape{512, 8};
  const auto total = [&](Checkpointing policy) {
    return plan_step(prepared.files, prepared.recipe, shape, policy).total();
  };
  const int64_t none = total(Checkpointing::kNone), selective = total(Checkpointing::kSelective),
                block = total(Checkpointing::kBlock);
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
  EXPECT_THAT(message_of([&] { chosen(none - 1); }),
              HasSubstr("it fits with gradient_checkpointing=selective"));
  EXPECT_THAT(message_of([&] { chosen(1000); }), HasSubstr("nothing short of a smaller model"));
}

// Dettmers et al. 2023: 4-bit adapters make 33B fit one device of 24 GB and 65B one of 48 GB, where 16-bit
// LoRA needs more.
TEST(Plan, ThePapersModelsFitThePapersDevices) {
  const std::vector<DeviceRow> rows = paper_plans();
  ASSERT_EQ(rows.size(), 12u);
  const auto gigabytes = [&](const std::string& model, const std::string& method) {
    for (const DeviceRow& row : rows)
      if (row.model == model && row.method.rfind(method, 0) == 0)
        return static_cast<double>(row.plan.total()) / 1e9;
    ADD_FAILURE() << model << " " << method;
    return 0.0;
  };
  EXPECT_LT(gigabytes("LLaMA 7B", "QLoRA"), 24);
  EXPECT_LT(gigabytes("LLaMA 33B", "QLoRA"), 24);
  EXPECT_LT(gigabytes("LLaMA 65B", "QLoRA"), 48);
  EXPECT_GT(gigabytes("LLaMA 33B", "LoRA"), 48);
  EXPECT_GT(gigabytes("LLaMA 65B", "full"), 480);
  // 65,285,660,672 parameters, 524,288,000 of them in embedding and head: the rest at 4.127 bits, those
  // at 16.
  for (const DeviceRow& row : rows)
    if (row.model == "LLaMA 65B" && row.method.rfind("QLoRA", 0) == 0) {
      EXPECT_NEAR(static_cast<double>(row.plan.bytes("base") + row.plan.bytes("scales")),
                  64.76e9 * 4.127 / 8 + 0.524e9 * 2, 0.05e9);
    }
  EXPECT_THAT(device_table(rows), HasSubstr("LLaMA 65B"));
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
  const StepPlan with_program =
      plan_step(prepared.files, prepared.recipe, prepared.shape(), Checkpointing::kNone, 1 << 20);
  EXPECT_EQ(with_program.total(), plan.total() + (1 << 20));
  EXPECT_THAT(memory_table(with_program), HasSubstr("program"));
  EXPECT_EQ(plan.bytes("adapter"), plan.trainable * 4);
  EXPECT_GT(json["arena"]["logits"].get<int64_t>(), 0);
}

}  // namespace
}  // namespace nibble::train
