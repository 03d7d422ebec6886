#include "train/engine.h"

#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "base/parallel.h"
#include "base/process.h"
#include "io/train_state.h"
#include "tests/train/tiny.h"

namespace nibble::train {
namespace {

using testing::HasSubstr;

data::MicroBatch packed(const std::vector<data::EncodedExample>& examples) {
  data::MicroBatch batch;
  for (const auto& example : examples) {
    const auto base = static_cast<int32_t>(batch.ids.size());
    for (size_t t = 0; t < example.ids.size(); ++t)
      if (example.train[t]) {
        batch.label_rows.push_back(base + static_cast<int32_t>(t) - 1);
        batch.labels.push_back(example.ids[t]);
      }
    batch.ids.insert(batch.ids.end(), example.ids.begin(), example.ids.end());
    batch.lengths.push_back(static_cast<int32_t>(example.ids.size()));
  }
  return batch;
}

data::StepBatch step_of(const std::vector<std::vector<data::EncodedExample>>& micros) {
  data::StepBatch step;
  for (const auto& examples : micros) {
    step.micro.push_back(packed(examples));
    step.tokens += static_cast<int64_t>(step.micro.back().ids.size());
    step.trained_tokens += static_cast<int64_t>(step.micro.back().labels.size());
  }
  return step;
}

// Two micro-batches of a few examples each; another one for each step.
data::StepBatch some_step(int64_t step) {
  const auto s = static_cast<uint64_t>(step);
  return step_of({counting_examples(3, 6, 10 + s), counting_examples(2, 9, 90 + s)});
}

std::unique_ptr<Engine> make_engine(const Prepared& prepared) {
  return std::make_unique<Engine>(prepared, choose_plan(prepared.files, prepared.recipe, prepared.shape()));
}

// Trained values and optimizer state after steps first … last, and the losses.
struct Trace {
  std::vector<double> losses;
  std::string bytes;
};
void run_steps(Engine& engine, int64_t first, int64_t last, Trace& trace) {
  for (int64_t step = first; step <= last; ++step) {
    const StepOutcome outcome = engine.step(some_step(step), step, step, 0.003);
    EXPECT_EQ(outcome.nonfinite, "");
    trace.losses.push_back(outcome.loss);
    trace.losses.push_back(outcome.grad_norm);
  }
  trace.bytes.clear();
  for (const autograd::Parameter* p : engine.parameters())
    trace.bytes.append(reinterpret_cast<const char*>(p->variable.value().raw()),
                       static_cast<size_t>(p->variable.value().bytes()));
}
Trace trace_of(const std::vector<std::string>& assignments, int64_t steps = 4) {
  const TempDir dir;
  const Prepared prepared = tiny_run(dir.path, assignments);
  const auto engine = make_engine(prepared);
  Trace trace;
  run_steps(*engine, 1, steps, trace);
  return trace;
}
void expect_same(const Trace& a, const Trace& b) {
  EXPECT_EQ(a.losses, b.losses);
  EXPECT_TRUE(a.bytes == b.bytes);
}

class Golden : public testing::TestWithParam<const char*> {};

TEST_P(Golden, TenAdamWStepsHaveTheLossesOfPeft) {
  const TempDir dir;
  const std::string base = GetParam();
  Prepared prepared = tiny_run(
      dir.path, {"adapter=" + kTiny + "/adapter", "dtype=f32", "max_grad_norm=0.3", "max_seq_length=64",
                 "optim=adamw", base == "dense" ? "quantize=none" : "quantize=stored"});
  if (base == "nf4") prepared.files = io::open_model(kTiny + "/nf4");  // bitsandbytes' own bytes
  const Json cases = parse_json(read_file(kTiny + "/cases.json"), "cases.json");
  std::vector<data::EncodedExample> examples;
  for (size_t s = 0; s < cases["sequences"].size(); ++s) {
    data::EncodedExample example;
    example.ids = cases["sequences"][s].get<std::vector<int32_t>>();
    for (const auto& label : cases["labels"][s]) example.train.push_back(label.get<int>() != -100);
    examples.push_back(example);
  }
  const data::StepBatch batch = step_of({examples});
  EXPECT_EQ(batch.trained_tokens, cases[base]["trained_tokens"].get<int64_t>());
  const auto engine = make_engine(prepared);
  const auto losses = cases[base]["losses"].get<std::vector<double>>(),
             norms = cases[base]["grad_norms"].get<std::vector<double>>();
  for (size_t step = 0; step < losses.size(); ++step) {
    const StepOutcome outcome =
        engine->step(batch, static_cast<int64_t>(step) + 1, static_cast<int64_t>(step) + 1, 1e-3);
    EXPECT_NEAR(outcome.loss, losses[step], 1e-4) << "step " << step + 1;
    if (step < norms.size()) {
      EXPECT_NEAR(outcome.grad_norm, norms[step], 1e-3 * norms[step]) << "step " << step + 1;
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Bases, Golden, testing::Values("dense", "nf4"));

TEST(Exactness, CheckpointingChangesNothing) {
  const Trace none = trace_of({"gradient_checkpointing=none", "lora_dropout=0.1"});
  expect_same(none, trace_of({"gradient_checkpointing=selective", "lora_dropout=0.1"}));
  expect_same(none, trace_of({"gradient_checkpointing=block", "lora_dropout=0.1"}));
}

TEST(Exactness, ThreadsChangeNothing) {
  set_threads(1);
  const Trace one = trace_of({});
  set_threads(2);
  expect_same(one, trace_of({}));
  set_threads(5);
  expect_same(one, trace_of({}));
  set_threads(0);
}

TEST(Exactness, PagingChangesNothing) {
  // Rank 16 makes 30,000 parameters: 240 kB of state in pages of 64 kB.
  expect_same(trace_of({"optim=adamw", "lora_r=32"}),
              trace_of({"optim=paged_adamw", "paged_memory=192KiB", "lora_r=32"}));
  // In 8 bits it takes rank 64 to leave the memory.
  expect_same(trace_of({"optim=adamw_8bit", "lora_r=64"}),
              trace_of({"optim=paged_adamw_8bit", "paged_memory=192KiB", "lora_r=64"}));
}

TEST(Exactness, ARepeatedRunIsTheSame) {
  expect_same(trace_of({"optim=adamw_8bit", "lora_r=32"}), trace_of({"optim=adamw_8bit", "lora_r=32"}));
  EXPECT_FALSE(trace_of({}).bytes == trace_of({"seed=43"}).bytes);
}

class Resume : public testing::TestWithParam<const char*> {};

TEST_P(Resume, FromACheckpointEqualsGoingOn) {
  const TempDir dir;
  const Prepared prepared = tiny_run(
      dir.path, {std::string("optim=") + GetParam(), "lora_r=32", "paged_memory=192KiB", "lora_dropout=0.2"});
  Trace whole, first, second;
  const auto uninterrupted = make_engine(prepared);
  run_steps(*uninterrupted, 1, 6, whole);
  {
    const auto engine = make_engine(prepared);
    run_steps(*engine, 1, 3, first);
    const io::RunLock lock(dir.path);
    engine->save(
        dir.path,
        {.step = 3, .updates = 3, .tokens = 12, .trained_tokens = 9, .best_step = 2, .best_loss = 0.1 + 0.2});
  }
  const auto engine = make_engine(prepared);
  const RunState state = engine->load(io::newest_checkpoint(dir.path)->path);
  EXPECT_EQ(state.step, 3);
  EXPECT_EQ(state.tokens, 12);
  EXPECT_EQ(state.best_loss, 0.1 + 0.2);
  run_steps(*engine, 4, 6, second);
  EXPECT_TRUE(second.bytes == whole.bytes);
  EXPECT_EQ(second.losses, std::vector<double>(whole.losses.begin() + 6, whole.losses.end()));
  // A checkpoint is an adapter too.
  EXPECT_EQ(io::read_adapter(io::newest_checkpoint(dir.path)->path).pairs.size(), 14u);
}
INSTANTIATE_TEST_SUITE_P(Optimizers, Resume,
                         testing::Values("adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "sgd",
                                         "lion"));

TEST(Engine, AccumulationEqualsPacking) {
  // The same examples in one stream or in one micro-batch each: equal but for the order of f32 sums.
  const TempDir dir;
  const Prepared prepared = tiny_run(dir.path, {"dtype=f32"});
  const auto together = make_engine(prepared), apart = make_engine(prepared);
  for (int64_t step = 1; step <= 3; ++step) {
    const auto examples = counting_examples(4, 7, static_cast<uint64_t>(step));
    std::vector<std::vector<data::EncodedExample>> each;
    for (const auto& example : examples) each.push_back({example});
    const StepOutcome a = together->step(step_of({examples}), step, step, 0.003),
                      b = apart->step(step_of(each), step, step, 0.003);
    // Each of ~40 token losses of about 5 has a relative error of a few 2^-24; the norm sums products of that
    // error.
    EXPECT_NEAR(a.loss, b.loss, 5 * 64 * 0x1p-24);
    EXPECT_NEAR(a.grad_norm, b.grad_norm, 1e-4 * a.grad_norm);
  }
}

TEST(Engine, TrainingLowersTheLoss) {
  const TempDir dir;
  const Prepared prepared = tiny_run(dir.path, {"dtype=f32"});
  const auto engine = make_engine(prepared);
  const std::vector<data::MicroBatch> held_out = {packed(counting_examples(4, 8, 1000))};
  const double before = *engine->evaluate(held_out);
  Trace trace;
  run_steps(*engine, 1, 25, trace);
  EXPECT_LT(*engine->evaluate(held_out), 0.9 * before);
}

TEST(Engine, AdaptersCanBeginAtTheQuantizationError) {
  const TempDir dir;
  const std::vector<data::MicroBatch> held_out = {packed(counting_examples(4, 8, 1000))};
  const auto first_loss = [&](const std::vector<std::string>& assignments) {
    const Prepared prepared = tiny_run(dir.path, assignments);
    return *make_engine(prepared)->evaluate(held_out);
  };
  const double dense = first_loss({"dtype=f32", "quantize=none"}),
               nf4 = first_loss({"dtype=f32", "quantize=nf4", "lora_r=64"});
  EXPECT_GT(std::abs(nf4 - dense), 1e-3);
  // A rank as large as the layers holds all of the error.
  EXPECT_NEAR(first_loss({"dtype=f32", "quantize=nf4", "lora_r=64", "init_lora_weights=loftq"}), dense, 1e-5);

  Prepared quantized = tiny_run(dir.path, {"quantize=nf4", "init_lora_weights=loftq"});
  quantized.files = io::open_model(kTiny + "/nf4");
  EXPECT_THAT(message_of([&] { make_engine(quantized); }),
              HasSubstr("loftq needs the weights that nf4 are made of"));
}

TEST(Engine, FullFineTuningTrainsEveryWeight) {
  const TempDir dir;
  const Prepared prepared = tiny_run(dir.path, {"method=full", "dtype=f32", "learning_rate=0.001"});
  const auto engine = make_engine(prepared);
  Trace trace;
  run_steps(*engine, 1, 10, trace);
  EXPECT_LT(trace.losses[18], 0.9 * trace.losses[0]);
  EXPECT_GE(engine->parameters().size(), 2u * 9 + 3);
  engine->export_to(dir.path + "/model", nullptr);
  // The written model has the trained values, and reads as the base of another run.
  Prepared again = tiny_run(dir.path, {"method=full", "dtype=f32"});
  again.files = io::open_model(dir.path + "/model");
  const auto second = make_engine(again);
  Trace nothing;
  run_steps(*second, 1, 0, nothing);
  EXPECT_TRUE(nothing.bytes == trace.bytes);
}

TEST(Engine, ANonFiniteValueIsTracedToLayerAndOperation) {
  const TempDir dir;
  const Prepared prepared = tiny_run(dir.path, {"dtype=f32"});
  const auto engine = make_engine(prepared);
  Trace trace;
  run_steps(*engine, 1, 1, trace);
  autograd::Parameter* b = nullptr;
  for (autograd::Parameter* p : engine->parameters())
    if (p->name == "model.layers.1.self_attn.q_proj.lora_B.weight") b = p;
  ASSERT_NE(b, nullptr);
  b->variable.value().data<float>()[3] = std::numeric_limits<float>::infinity();
  const StepOutcome outcome = engine->step(some_step(2), 2, 2, 0.003);
  EXPECT_THAT(outcome.nonfinite, HasSubstr("the loss, first in linear in layer 1 (element 0 of its result"));
  EXPECT_THAT(outcome.nonfinite, HasSubstr("micro-batch 1"));
}

TEST(Engine, DropoutDiffersFromStepToStep) {
  for (const bool drops : {true, false}) {
    const TempDir dir;
    const Prepared prepared =
        tiny_run(dir.path, {"dtype=f32", drops ? "lora_dropout=0.3" : "lora_dropout=0"});
    const auto engine = make_engine(prepared);
    Trace moved;  // so that B is not zero
    run_steps(*engine, 1, 2, moved);
    const auto loss = [&](int64_t step) { return engine->step(some_step(5), step, step, 0.0).loss; };
    const double first = loss(3);
    EXPECT_EQ(loss(3), first) << "the masks of a step are its own";
    EXPECT_EQ(loss(4) != first, drops);
  }
}

TEST(Engine, AStepThatWasNotFiniteLeavesNoTrace) {
  const TempDir dir;
  const Prepared prepared = tiny_run(dir.path, {"dtype=f32"});
  const auto hurt = make_engine(prepared), whole = make_engine(prepared);
  Trace a, b;
  run_steps(*hurt, 1, 2, a);
  float& value = hurt->parameters().front()->variable.value().data<float>()[0];
  const float good = std::exchange(value, std::numeric_limits<float>::quiet_NaN());
  EXPECT_NE(hurt->step(some_step(7), 7, 3, 0.003).nonfinite, "");
  value = good;
  run_steps(*hurt, 3, 4, a);
  run_steps(*whole, 1, 4, b);
  expect_same(a, b);
}

TEST(Engine, NothingChangesWhenInterrupted) {
  const TempDir dir;
  const Prepared prepared = tiny_run(dir.path, {});
  const auto engine = make_engine(prepared);
  Trace before, after;
  run_steps(*engine, 1, 2, before);
  set_interrupted(true);
  EXPECT_TRUE(engine->step(some_step(3), 3, 3, 0.003).interrupted);
  EXPECT_FALSE(engine->evaluate({packed(counting_examples(2, 8, 5))}).has_value());
  set_interrupted(false);
  run_steps(*engine, 3, 2, after);
  EXPECT_TRUE(before.bytes == after.bytes);
}

}  // namespace
}  // namespace nibble::train
