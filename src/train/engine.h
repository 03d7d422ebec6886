// The model under training and everything that changes it: one optimizer step, evaluation, reading and
// writing of state. Knows nothing of files' places, schedules or displays. Inside a step every allocation
// comes from the planned arena.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "train/checkpoint.h"
#include "train/optimizer.h"
#include "train/plan.h"
#include "train/prepare.h"

namespace nibble::train {

struct StepOutcome {
  double loss = 0;           // mean over the trained tokens of the step
  double grad_norm = 0;      // before clipping
  bool interrupted = false;  // asked to stop between two micro-steps: nothing was changed
  std::string nonfinite;     // where a value stopped being finite; then nothing was changed
};

class Engine {
 public:
  // Loads the base and makes it trainable. `prepared` outlives the engine.
  Engine(const Prepared& prepared, StepPlan plan);
  ~Engine();

  // Optimizer step number `step` (from 1); `update` counts the steps that were applied, this one included.
  StepOutcome step(const data::StepBatch& batch, int64_t step, int64_t update, double learning_rate);
  // Mean NLL over the trained tokens. nullopt when interrupted.
  std::optional<double> evaluate(const std::vector<data::MicroBatch>& batches);

  // A checkpoint of the run directory, and the state of one.
  void save(const std::string& run_directory, const RunState& state);
  RunState load(const std::string& checkpoint);
  // The adapter, or with method full the whole model, as a directory others can load. `manifest` may be null.
  void export_to(const std::string& directory, const Json& manifest);

  // Who is told of every operation of the steps that follow; null: nobody.
  void watch(autograd::OpObserver* observer) { train_cx_->observer = observer; }

  DType compute() const { return train_cx_->compute(); }
  models::Model& model() { return *model_; }
  const StepPlan& plan() const { return plan_; }
  const std::vector<autograd::Parameter*>& parameters() const { return parameters_; }
  // Everything the engine holds, for comparison with the plan.
  const Ledger& ledger() { return allocator_->ledger(); }

 private:
  double train_micro(const data::MicroBatch& batch, int64_t step, size_t micro, float weight);
  std::string find_nonfinite(const data::StepBatch& batch, int64_t step, size_t first, size_t last,
                             float weight);
  void forget_gradients();
  void start_adapters();

  const Prepared& prepared_;
  StepPlan plan_;
  std::shared_ptr<Allocator> allocator_;
  backend::Stream stream_;
  std::unique_ptr<models::Model> model_;
  int64_t head_rows_ = 0;
  io::AdapterConfig adapter_config_;
  std::vector<autograd::Parameter*> parameters_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Allocator> block_;  // the one block that both arenas lie in
  std::unique_ptr<ArenaAllocator> train_arena_, eval_arena_;
  std::unique_ptr<Context> train_cx_, eval_cx_;
  Tensor norm_scratch_;
};

}  // namespace nibble::train
