// Pairs that must agree to the last bit: checkpointing, threads, an arena; and the shape-only run, which must
// leave the same record of memory.
#include "backend/kernels/elementwise.h"
#include "base/parallel.h"
#include "tests/models/tiny.h"

namespace nibble::models::test {
namespace {

using autograd::Checkpointing;

constexpr float kDropout = 0.2f;

Batch long_batch() {
  const Json cases = read_json(kTiny + "/cases.json");
  return batch_of(cases["sequences"], cases["labels"]);
}
// Fewer rows than the few-row product takes: the pass that will be run again must not use it.
Batch short_batch() {
  const Json cases = read_json(kTiny + "/cases.json");
  return batch_of(Json::array({cases["sequences"][1]}), Json::array({cases["labels"][1]}));
}

// The loss and every gradient of one step, as bytes to compare.
struct Result {
  float loss = 0;
  std::vector<std::vector<float>> gradients;
  bool operator==(const Result&) const = default;
};

struct Setting {
  DType compute = kF32;
  Checkpointing checkpointing = Checkpointing::kNone;
  const char* quantize = "nf4";
  std::vector<std::string> targets = {"all-linear"};
  float dropout = kDropout;
};

void prepare(Loaded& run, const Setting& s) {
  io::AdapterFile file = tiny_adapter();
  std::erase_if(file.pairs, [&](const auto& pair) { return !nn::targets_module(s.targets, pair.module); });
  file.config.lora_dropout = s.dropout;
  nn::attach_adapter(run.visit(), file, 0, *run.allocator);
  run.use(0);
  run.cx.training = true;
  run.cx.seed = 5;
  run.cx.step = 3;
  run.cx.checkpointing = s.checkpointing;
}

Result result_of(Loaded& run, float loss) {
  Result r;
  r.loss = loss;
  for (autograd::Parameter* p : adapter_parameters(run, 0)) r.gradients.push_back(to_vector(p->grad()));
  return r;
}

Result step(const Setting& s, const Batch& batch) {
  Loaded run(io::open_model(kTiny), s.compute, options_of(s.compute, s.quantize, true));
  prepare(run, s);
  return result_of(run, loss_and_gradients(run, batch));
}

class Exact : public testing::TestWithParam<DType> {};

TEST_P(Exact, CheckpointingChangesNothing) {
  for (const Batch& batch : {long_batch(), short_batch()})
    for (const std::vector<std::string>& targets :
         {std::vector<std::string>{"all-linear"}, std::vector<std::string>{"q_proj", "v_proj"},
          std::vector<std::string>{"up_proj"}}) {
      Setting s{.compute = GetParam(), .targets = targets};
      const Result none = step(s, batch);
      ASSERT_FALSE(none.gradients.empty());
      s.checkpointing = Checkpointing::kSelective;
      EXPECT_TRUE(step(s, batch) == none) << "selective, " << targets[0];
      s.checkpointing = Checkpointing::kBlock;
      EXPECT_TRUE(step(s, batch) == none) << "block, " << targets[0];
    }
}

TEST_P(Exact, ThreadsChangeNothing) {
  const Setting s{.compute = GetParam()};
  set_threads(1);
  const Result one = step(s, long_batch());
  set_threads(2);
  const Result two = step(s, long_batch());
  set_threads(3);
  const Result three = step(s, long_batch());
  set_threads(0);
  EXPECT_TRUE(one == two);
  EXPECT_TRUE(one == three);
}

TEST_P(Exact, SeedAndStepNameTheDropout) {
  Loaded run(io::open_model(kTiny), GetParam(), options_of(GetParam()));
  prepare(run, {.compute = GetParam()});
  const Result first = result_of(run, loss_and_gradients(run, long_batch()));
  run.cx.step = 4;
  const float other = loss_and_gradients(run, long_batch());
  EXPECT_NE(first.loss, other);
  run.cx.training = false;
  const float without = loss_and_gradients(run, long_batch());
  EXPECT_NE(first.loss, without);
}

// Gradients add up over micro-batches as one accumulates; the same twice is exactly double in f32.
TEST_P(Exact, GradientsAccumulate) {
  Loaded run(io::open_model(kTiny), GetParam(), options_of(GetParam()));
  prepare(run, {.compute = GetParam()});
  Result once = result_of(run, loss_and_gradients(run, long_batch()));
  const Result twice = result_of(run, loss_and_gradients(run, long_batch()));
  for (size_t i = 0; i < once.gradients.size(); ++i) {
    for (float& g : once.gradients[i]) g *= 2;
    EXPECT_LT(relative_norm(twice.gradients[i], once.gradients[i]), 1e-6);
  }
}

// One step after a warm-up (the stream's scratch is grown by then): its allocations, in order.
std::vector<Ledger::Event> events_of(const Setting& s, const Batch& batch,
                                     std::shared_ptr<Allocator> memory) {
  Loaded run(io::open_model(kTiny), s.compute, options_of(s.compute, s.quantize, true), memory);
  prepare(run, s);
  for (autograd::Parameter* p : adapter_parameters(run, 0)) autograd::allocate_grad(*p, *memory);
  loss_and_gradients(run, batch);
  memory->ledger().start_recording();
  loss_and_gradients(run, batch);
  return memory->ledger().stop_recording();
}

TEST_P(Exact, ShapeOnlyRunLeavesTheSameRecord) {
  for (const auto checkpointing : {Checkpointing::kNone, Checkpointing::kSelective, Checkpointing::kBlock}) {
    const Setting s{.compute = GetParam(), .checkpointing = checkpointing};
    const auto real = events_of(s, long_batch(), make_host_allocator());
    const auto shapes = events_of(s, long_batch(), make_meta_allocator());
    ASSERT_EQ(real.size(), shapes.size());
    ASSERT_GT(real.size(), 50u);
    for (size_t i = 0; i < real.size(); ++i) {
      ASSERT_EQ(real[i].bytes, shapes[i].bytes) << "event " << i;
      ASSERT_EQ(real[i].id, shapes[i].id) << "event " << i;
      ASSERT_EQ(real[i].release, shapes[i].release) << "event " << i;
    }
  }
}

// Planned on the meta device with every row labelled, then run from the arena with fewer labels, or none.
TEST_P(Exact, ArenaServesTheStep) {
  for (const auto checkpointing : {Checkpointing::kNone, Checkpointing::kBlock}) {
    const Setting s{.compute = GetParam(), .checkpointing = checkpointing};
    Batch batch = long_batch();
    Batch full = batch;
    full.rows.clear();
    full.labels.assign(full.ids.size(), 5);
    for (size_t i = 0; i < full.ids.size(); ++i) full.rows.push_back(static_cast<int32_t>(i));

    auto plan_with = [&] {
      Loaded run(io::open_model(kTiny), s.compute, options_of(s.compute, s.quantize, true),
                 make_meta_allocator());
      prepare(run, s);
      for (autograd::Parameter* p : adapter_parameters(run, 0)) autograd::allocate_grad(*p, *run.allocator);
      const auto activations = make_meta_allocator();
      autograd::Context planned(run.stream, *activations, s.compute);
      planned.adapters = run.cx.adapters;
      planned.training = true;
      planned.checkpointing = s.checkpointing;
      activations->ledger().start_recording();
      loss_and_gradients(run, full, planned);
      return plan_arena(activations->ledger().stop_recording());
    };
    const ArenaPlan plan = plan_with();

    for (const bool labelled : {true, false}) {
      if (!labelled) batch.rows.clear(), batch.labels.clear();
      const Result plain = step(s, batch);
      Loaded run(io::open_model(kTiny), s.compute, options_of(s.compute, s.quantize, true));
      prepare(run, s);
      for (autograd::Parameter* p : adapter_parameters(run, 0)) autograd::allocate_grad(*p, *run.allocator);
      ArenaAllocator arena(plan, *run.allocator);
      autograd::Context cx(run.stream, arena, s.compute);
      cx.adapters = run.cx.adapters;
      cx.training = true;
      cx.seed = run.cx.seed;
      cx.step = run.cx.step;
      cx.checkpointing = s.checkpointing;
      for (int repeat = 0; repeat < 2; ++repeat) {
        for (autograd::Parameter* p : adapter_parameters(run, 0)) autograd::clear_grad(*p);
        arena.begin_step();
        EXPECT_TRUE(result_of(run, loss_and_gradients(run, batch, cx)) == plain) << labelled << " " << repeat;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Compute, Exact, testing::Values(kF32, kBF16),
                         [](const auto& test) { return std::string(dtype_name(test.param)); });

}  // namespace
}  // namespace nibble::models::test
