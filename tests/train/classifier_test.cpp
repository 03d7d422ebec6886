// Training of classifiers: the task is found, the head is made, trained, planned, saved, resumed.
#include <gmock/gmock.h>

#include "base/process.h"
#include "io/peft_adapter.h"
#include "models/classifier.h"
#include "tests/train/classifier.h"
#include "train/engine.h"
#include "train/run.h"

namespace nibble::train {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

Recipe recipe_of(const TinyEncoder& encoder, const std::string& data, const std::string& out,
                 const std::vector<std::string>& more = {}) {
  std::vector<std::string> keys = {"lora_r=4",         "lora_alpha=8",       "per_device_train_batch_size=16",
                                   "max_steps=6",      "learning_rate=0.01", "dtype=f32",
                                   "max_seq_length=12"};
  keys.insert(keys.end(), more.begin(), more.end());
  return recipe_with(encoder.model(), data, out, keys);
}

TEST(Classifier, TheTaskIsFoundAndTheHeadMade) {
  const TempDir dir;
  const TinyEncoder encoder(dir.path);
  const Prepared classes =
      prepare(recipe_of(encoder, encoder.sentiments("sst2.tsv", 20, 1), dir.path + "/run"));
  EXPECT_EQ(classes.recipe.task, "classification");
  EXPECT_FALSE(classes.recipe.packing) << "a sequence is an example";
  EXPECT_EQ(classes.config.labels, 2);
  EXPECT_EQ(classes.config.source["id2label"]["1"], "positive");
  EXPECT_THAT(show_gate(classes, false), HasSubstr("19 labels (sst2)"));
  const Prepared scores =
      prepare(recipe_of(encoder, encoder.similarities("stsb.tsv", 20), dir.path + "/run"));
  EXPECT_EQ(scores.recipe.task, "regression");
  EXPECT_EQ(scores.config.task, models::Task::kRegression);
  EXPECT_EQ(prepare_synthetic(recipe_of(encoder, "x", dir.path + "/run")).config.labels, 2);
}

TEST(Classifier, WhatDoesNotFitIsAnErrorThatSaysSo) {
  const TempDir dir;
  const TinyEncoder encoder(dir.path);
  const std::string classes = encoder.sentiments("sst2.tsv", 20, 1),
                    scores = encoder.similarities("stsb.tsv", 20);
  const auto refused = [&](const std::string& data, const std::vector<std::string>& more) {
    return message_of([&] { prepare(recipe_of(encoder, data, dir.path + "/run", more)); });
  };
  EXPECT_THAT(refused(classes, {"task=causal_lm"}),
              HasSubstr("is an encoder, for classification or regression"));
  EXPECT_THAT(refused(classes, {"task=regression"}),
              HasSubstr("sst2 has classes; set task to classification"));
  EXPECT_THAT(refused(scores, {"task=classification"}), HasSubstr("stsb has scores; set task to regression"));
  EXPECT_THAT(refused(classes, {"task=classification", "model=" + kTiny}),
              HasSubstr("needs an encoder (BERT, RoBERTa)"));
  const TinyEncoder three(dir.path + "/three", "bert");
  EXPECT_THAT(message_of([&] { prepare(recipe_of(three, classes, dir.path + "/run")); }),
              HasSubstr("has a head of 3 labels where the task has 2"));
}

class Methods : public testing::TestWithParam<std::vector<std::string>> {};

TEST_P(Methods, LearnTheTask) {
  const TempDir dir;
  const TinyEncoder encoder(dir.path);
  std::vector<std::string> keys = GetParam();
  keys.insert(keys.end(), {"max_steps=60", "eval_steps=60"});
  const RunResult result =
      run_quietly(recipe_of(encoder, encoder.sentiments("sst2.tsv", 240, 1), dir.path + "/run", keys));
  EXPECT_NEAR(result.steps.front().loss, 0.69, 0.1) << "a fresh head knows nothing";
  EXPECT_LT(result.evals.back().loss, 0.3);
  // What it leaves is a model of its own, with the head's values.
  if (GetParam()[0] == "method=full") {
    EXPECT_EQ(io::open_model(dir.path + "/run").config["architectures"][0], "BertForSequenceClassification");
    return;
  }
  const io::AdapterFile adapter = io::read_adapter(dir.path + "/run");
  EXPECT_EQ(adapter.config.task_type, "SEQ_CLS");
  ASSERT_EQ(adapter.saved.size(), 2u);
  EXPECT_EQ(models::with_head_of(adapter, io::open_model(encoder.model())).config["id2label"].size(), 2u);
}
INSTANTIATE_TEST_SUITE_P(
    Five, Methods,
    testing::Values(std::vector<std::string>{"method=full", "dtype=bf16", "learning_rate=0.002"},
                    std::vector<std::string>{"quantize=none", "dtype=bf16"},
                    std::vector<std::string>{"quantize=int8"}, std::vector<std::string>{"quantize=fp4"},
                    std::vector<std::string>{"quantize=nf4", "double_quant=true"}));

TEST(Classifier, AScoreIsLearned) {
  const TempDir dir;
  const TinyEncoder encoder(dir.path);
  const std::string data = encoder.similarities("stsb.tsv", 60);
  const RunResult result = run_quietly(
      recipe_of(encoder, data, dir.path + "/run", {"max_steps=200", "eval_data=" + data, "quantize=none"}));
  EXPECT_GT(result.steps.front().loss, 2);
  EXPECT_LT(result.evals.back().loss, 0.3) << "where nothing drops out";
}

TEST(Classifier, ResumedEqualsUninterrupted) {
  const TempDir dir;
  const TinyEncoder encoder(dir.path);
  const std::string data = encoder.sentiments("sst2.tsv", 60, 1);
  const auto part = [&](const char* name, const char* steps, bool resume) {
    run_quietly(recipe_of(encoder, data, dir.path + "/" + name,
                          {steps, "lora_dropout=0.2", "save_steps=2", "gradient_accumulation_steps=2"}),
                resume);
  };
  part("whole", "max_steps=6", false);
  part("parts", "max_steps=2", false);
  part("parts", "max_steps=6", true);
  for (const char* name :
       {"adapter_model.safetensors", "checkpoint-6/state.safetensors", "checkpoint-6/optimizer.safetensors"})
    EXPECT_TRUE(read_file(dir.path + "/whole/" + name) == read_file(dir.path + "/parts/" + name)) << name;
  // A run that goes on from an adapter begins with its head.
  Recipe recipe = recipe_of(encoder, data, dir.path + "/more",
                            {"adapter=" + dir.path + "/whole", "learning_rate=0", "max_steps=1"});
  run_quietly(recipe);
  EXPECT_TRUE(read_file(dir.path + "/whole/adapter_model.safetensors") ==
              read_file(dir.path + "/more/adapter_model.safetensors"));
}

TEST(Classifier, ThePlanIsWhatTheLedgerMeasures) {
  const TempDir dir;
  const TinyEncoder encoder(dir.path);
  for (const char* method : {"method=lora", "method=full"}) {
    SCOPED_TRACE(method);
    const Prepared prepared =
        prepare(recipe_of(encoder, encoder.sentiments("sst2.tsv", 40, 1), dir.path + "/run", {method}));
    const StepPlan plan = choose_plan(prepared.files, prepared.recipe, prepared.shape());
    Engine engine(prepared, plan);
    data::StepBatch batch;
    batch.micro.push_back(largest_micro(plan.shape, prepared.config.task));
    batch.tokens = plan.shape.tokens;
    batch.trained_tokens = batch.micro[0].trained();
    EXPECT_EQ(batch.trained_tokens, plan.shape.sequences);
    for (int64_t step = 1; step <= 2; ++step) EXPECT_EQ(engine.step(batch, step, step, 1e-3).nonfinite, "");
    const auto groups = engine.ledger().groups_at_peak();
    const int64_t weights = groups.count("weights") ? groups.at("weights") : 0,
                  planned = plan.bytes("base") + plan.bytes("scales");
    EXPECT_NEAR(static_cast<double>(plan.total() - planned - plan.thread_bytes()) /
                    static_cast<double>(engine.ledger().peak_bytes() - weights),
                1.0, 0.05)
        << memory_table(plan);
  }
}

}  // namespace
}  // namespace nibble::train
