// Training of an encoder–decoder: pairs from data, packed streams of both, the plan, resuming, what is saved.
#include <gmock/gmock.h>

#include "base/parallel.h"
#include "base/process.h"
#include "io/peft_adapter.h"
#include "tests/train/tiny.h"
#include "train/engine.h"
#include "train/run.h"

namespace nibble::train {
namespace {

using testing::HasSubstr;

// A T5 of tests/goldens with a tokenizer of words, and a task it can learn: to say the first word again.
class TinyT5 {
 public:
  explicit TinyT5(const std::string& directory, const std::string& golden = "v1_1") : directory_(directory) {
    const std::string from = NIBBLE_SOURCE_DIR "/tests/goldens/t5/" + golden;
    std::filesystem::create_directories(model());
    for (const char* name : {"config.json", "model.safetensors"})
      std::filesystem::copy_file(from + "/" + name, model() + "/" + name);
    Json vocab = {{"<pad>", 0}, {"</s>", 1}, {"<unk>", 2}};
    for (int i = 3; i < 96; ++i) vocab[fmt::format("w{}", i)] = i;
    write("model/tokenizer.json",
          Json{{"model", {{"type", "WordLevel"}, {"vocab", vocab}, {"unk_token", "<unk>"}}},
               {"pre_tokenizer", {{"type", "WhitespaceSplit"}}}}
              .dump());
    write("model/tokenizer_config.json", Json{{"eos_token", "</s>"}}.dump());
  }
  std::string model() const { return directory_ + "/model"; }
  std::string write(const std::string& name, const std::string& text) const {
    write_file_atomic(directory_ + "/" + name, text);
    return directory_ + "/" + name;
  }
  // Prompts of two to seven words, responses of one or two.
  std::string pairs(const std::string& name, int64_t count, uint64_t seed) const {
    std::string text;
    const Rng rng(seed, 3);
    for (int64_t i = 0; i < count; ++i) {
      const auto at = static_cast<uint64_t>(i) * 10;
      const uint64_t word = 3 + rng.below(at, 6), words = 1 + rng.below(at + 1, 6);
      std::string prompt = fmt::format("w{}", word);
      for (uint64_t w = 0; w < words; ++w) prompt += fmt::format(" w{}", 20 + rng.below(at + 2 + w, 60));
      text += Json{{"prompt", prompt}, {"completion", fmt::format("w{}{}", word, i % 2 == 0 ? " w9" : "")}}
                  .dump() +
              "\n";
    }
    return write(name, text);
  }

 private:
  std::string directory_;
};

Recipe recipe_of(const TinyT5& t5, const std::string& data, const std::string& out,
                 const std::vector<std::string>& more = {}) {
  std::vector<std::string> keys = {"lora_r=4",    "lora_alpha=8",       "per_device_train_batch_size=8",
                                   "max_steps=6", "learning_rate=0.01", "dtype=f32",
                                   "quantize=nf4"};
  keys.insert(keys.end(), more.begin(), more.end());
  return recipe_with(t5.model(), data, out, keys);
}

TEST(Seq2Seq, TheTaskIsFoundAndPairsAreMade) {
  const TempDir dir;
  const TinyT5 t5(dir.path);
  const std::string data = t5.write("pairs.jsonl",
                                    "{\"prompt\": \"w5 w6 w7\", \"completion\": \"w8 w9\"}\n"
                                    "{\"prompt\": \"w5\", \"completion\": \"w8\"}\n");
  const Prepared prepared = prepare(recipe_of(t5, data, dir.path + "/run", {"eval_fraction=0"}));
  EXPECT_EQ(prepared.recipe.task, "seq2seq");
  const data::EncodedExample& e = prepared.dataset.train[0];
  EXPECT_EQ(e.ids, (std::vector<int32_t>{5, 6, 7, 1, 0, 8, 9, 1}));
  EXPECT_EQ(e.train, (std::vector<uint8_t>{0, 0, 0, 0, 0, 1, 1, 1}));
  EXPECT_EQ(e.source_tokens, 4);
  EXPECT_EQ(prepared.dataset.report.max_seq_length, 3);
  EXPECT_EQ(prepared.dataset.report.max_source_length, 4);
  EXPECT_THAT(show_gate(prepared, false), HasSubstr("sequences of 3 and sources of 4"));
  const data::StepBatch batch = prepared.steps().step(0);
  EXPECT_EQ(batch.trained_tokens, 5);
  EXPECT_EQ(batch.source_tokens, 6);
  EXPECT_EQ(batch.tokens, 11);
  // Both are cut to their limits before their end tokens.
  const Prepared cut = prepare(recipe_of(t5, data, dir.path + "/run",
                                         {"eval_fraction=0", "source_max_length=3", "target_max_length=2"}));
  EXPECT_EQ(cut.dataset.train[0].ids, (std::vector<int32_t>{5, 6, 1, 0, 8, 1}));
  EXPECT_EQ(cut.dataset.train[0].source_tokens, 3);
  EXPECT_EQ(cut.dataset.report.source_cut, 1);
  EXPECT_EQ(cut.dataset.report.target_cut, 1);
  const Prepared synthetic = prepare_synthetic(recipe_of(t5, data, dir.path + "/run", {"max_seq_length=10"}));
  EXPECT_EQ(synthetic.steps().step(0).source_tokens, 8 * 10);
}

TEST(Seq2Seq, WhatDoesNotFitIsAnErrorThatSaysSo) {
  const TempDir dir;
  const TinyT5 t5(dir.path);
  const auto refused = [&](const std::string& data, const std::vector<std::string>& more) {
    return message_of([&] { prepare(recipe_of(t5, data, dir.path + "/run", more)); });
  };
  const std::string good = t5.pairs("good.jsonl", 20, 1);
  EXPECT_THAT(refused(good, {"task=causal_lm"}), HasSubstr("is an encoder–decoder, for seq2seq"));
  EXPECT_THAT(refused(good, {"task=seq2seq", "model=" + kTiny}),
              HasSubstr("seq2seq needs an encoder–decoder (T5)"));
  EXPECT_THAT(refused(good, {"train_on_source=true"}), HasSubstr("reads its source and never writes it"));
  EXPECT_THAT(refused(good, {"overlong=split", "max_seq_length=4"}),
              HasSubstr("split is for texts of one stream"));
  EXPECT_THAT(refused(good, {"max_seq_length=4"}), HasSubstr("are longer than 4 tokens"));
  const auto pair = [&](const char* prompt, const char* completion) {
    return t5.write("bad.jsonl", Json{{"prompt", prompt}, {"completion", completion}}.dump() + "\n");
  };
  EXPECT_THAT(refused(pair("", "w5"), {}), HasSubstr("has an empty prompt"));
  EXPECT_THAT(refused(pair("w5", ""), {}), HasSubstr("has an empty response"));
  EXPECT_THAT(refused(t5.write("text.jsonl", "{\"text\": \"w5 w6\"}\n"), {}),
              HasSubstr("has an empty prompt"));
}

// Several pairs in one bin learn what they learn in streams of their own.
TEST(Seq2Seq, PackingIsExact) {
  const TempDir dir;
  const TinyT5 t5(dir.path);
  const Prepared prepared = prepare(recipe_of(t5, t5.pairs("pairs.jsonl", 12, 1), dir.path + "/run",
                                              {"eval_fraction=0", "max_seq_length=40"}));
  Engine engine(prepared, choose_plan(prepared.files, prepared.recipe, prepared.shape()));
  const auto& examples = prepared.dataset.train;
  const auto together = data::sequential_batches(examples, 1000, 1000),
             apart = data::sequential_batches(examples, 1, 1);
  ASSERT_EQ(together.size(), 1u);
  ASSERT_EQ(apart.size(), examples.size());
  EXPECT_NEAR(*engine.evaluate(together), *engine.evaluate(apart), 1e-5);
  // Bins hold to the limit of either stream.
  data::StepOptions options = prepared.step_options();
  options.batch_size = 1;
  options.max_seq_length = 9;
  options.max_source_length = 11;
  const data::StepStream stream(examples, options);
  int64_t seen = 0;
  for (int64_t i = 0; i < stream.steps_per_epoch(); ++i)
    for (const data::MicroBatch& m : stream.step(i).micro) {
      EXPECT_LE(m.ids.size(), 9u);
      EXPECT_LE(m.source_ids.size(), 11u);
      EXPECT_EQ(m.lengths.size(), m.source_lengths.size());
      seen += static_cast<int64_t>(m.lengths.size());
    }
  EXPECT_EQ(seen, 12);
  EXPECT_LT(stream.steps_per_epoch(), 12) << "some share a bin";
}

class Seq2SeqMethods : public testing::TestWithParam<std::vector<std::string>> {};

TEST_P(Seq2SeqMethods, LearnTheTask) {
  const TempDir dir;
  const TinyT5 t5(dir.path);
  std::vector<std::string> keys = GetParam();
  keys.insert(keys.end(), {"max_steps=60", "eval_steps=60"});
  const RunResult result =
      run_quietly(recipe_of(t5, t5.pairs("pairs.jsonl", 200, 1), dir.path + "/run", keys));
  EXPECT_GT(result.steps.front().loss, 3);
  EXPECT_LT(result.evals.back().loss, 0.7 * result.steps.front().loss);
  if (GetParam()[0] == "method=full") {
    EXPECT_EQ(io::open_model(dir.path + "/run").config["architectures"][0], "T5ForConditionalGeneration");
    return;
  }
  const io::AdapterFile adapter = io::read_adapter(dir.path + "/run");
  EXPECT_EQ(adapter.config.task_type, "SEQ_2_SEQ_LM");
  EXPECT_EQ(adapter.pairs.size(), 2u * 7 + 3u * 11) << "every product of encoder and decoder";
}
INSTANTIATE_TEST_SUITE_P(
    All, Seq2SeqMethods,
    testing::Values(std::vector<std::string>{"method=full", "dtype=bf16", "learning_rate=0.002",
                                             "quantize=none"},
                    std::vector<std::string>{"quantize=none", "dtype=bf16"},
                    std::vector<std::string>{"quantize=int8"}, std::vector<std::string>{"quantize=fp4"},
                    std::vector<std::string>{"quantize=e2m1"}, std::vector<std::string>{"quantize=int4"},
                    std::vector<std::string>{"quantize=nf4", "double_quant=true", "packing=false"}));

TEST(Seq2Seq, CheckpointingThreadsAndResumingChangeNoByte) {
  const TempDir dir;
  const TinyT5 t5(dir.path);
  const std::string data = t5.pairs("pairs.jsonl", 40, 1);
  const auto part = [&](const char* name, std::vector<std::string> more, bool resume = false) {
    more.insert(more.end(), {"lora_dropout=0.2", "save_steps=2", "gradient_accumulation_steps=2"});
    run_quietly(recipe_of(t5, data, dir.path + "/" + name, more), resume);
  };
  const auto same = [&](const char* a, const char* b) {
    for (const char* name : {"adapter_model.safetensors", "checkpoint-4/state.safetensors",
                             "checkpoint-4/optimizer.safetensors"})
      EXPECT_TRUE(read_file(dir.path + "/" + a + "/" + name) == read_file(dir.path + "/" + b + "/" + name))
          << a << " " << b << " " << name;
  };
  part("whole", {"max_steps=4", "threads=1"});
  part("blocks", {"max_steps=4", "threads=2", "gradient_checkpointing=block"});
  part("parts", {"max_steps=2", "threads=2"});
  part("parts", {"max_steps=4", "threads=2"}, true);
  set_threads(0);
  for (const char* name : {"adapter_model.safetensors"})
    EXPECT_TRUE(read_file(dir.path + "/whole/" + name) == read_file(dir.path + "/blocks/" + name));
  same("whole", "parts");
}

TEST(Seq2Seq, ThePlanIsWhatTheLedgerMeasures) {
  const TempDir dir;
  const TinyT5 t5(dir.path);
  for (const char* method : {"method=lora", "method=full"})
    for (const char* checkpointing : {"none", "block"}) {
      SCOPED_TRACE(fmt::format("{} {}", method, checkpointing));
      const Prepared prepared = prepare(
          recipe_of(t5, t5.pairs("pairs.jsonl", 40, 1), dir.path + "/run",
                    {method, fmt::format("gradient_checkpointing={}", checkpointing), "max_seq_length=64",
                     std::string(method) == "method=full" ? "quantize=none" : "quantize=nf4"}));
      const StepPlan plan = choose_plan(prepared.files, prepared.recipe, prepared.shape());
      EXPECT_EQ(plan.shape.source_tokens, 8 * 64);
      Engine engine(prepared, plan);
      data::StepBatch batch;
      batch.micro.push_back(largest_micro(plan.shape, prepared.config.task));
      batch.tokens = batch.micro[0].tokens();
      batch.trained_tokens = batch.micro[0].trained();
      for (int64_t step = 1; step <= 2; ++step) EXPECT_EQ(engine.step(batch, step, step, 1e-3).nonfinite, "");
      const auto groups = engine.ledger().groups_at_peak();
      const int64_t weights = groups.count("weights") ? groups.at("weights") : 0,
                    planned = plan.bytes("base") + plan.bytes("scales") + plan.bytes("scratch"),
                    scratch = engine.ledger().names_peak()[{"scratch", "scratch"}];
      EXPECT_NEAR(static_cast<double>(plan.total() - planned) /
                      static_cast<double>(engine.ledger().peak_bytes() - weights - scratch),
                  1.0, 0.05)
          << memory_table(plan);
      EXPECT_LE(scratch, plan.bytes("scratch") - plan.thread_bytes() + 4 * 64);
    }
}

}  // namespace
}  // namespace nibble::train
