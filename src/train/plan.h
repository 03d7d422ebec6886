// The plan is a dry run of the real step: the model on a meta stream, the micro-step of train/step.h with a
// recording allocator. The record is the memory table and the arena that serves the real steps.
#pragma once
#include <string>
#include <vector>

#include "backend/kernels/workspace.h"
#include "io/weights.h"
#include "train/step.h"
#include "train/step_time.h"

namespace nibble::train {

struct MemoryRow {
  std::string name;  // "program", "base", "scales", "adapter", "gradients", "optimizer", "arena", "scratch"
  int64_t bytes = 0;
  std::string about;
};

struct StepPlan {
  Checkpointing checkpointing = Checkpointing::kNone;
  StepShape shape;
  std::vector<MemoryRow> rows;        // add up to total()
  std::vector<MemoryRow> arena_rows;  // what the arena is made of: activations, logits
  ArenaPlan train_arena, eval_arena;  // both in one block of arena_bytes()
  backend::Workspace workspace;       // of kernels
  int64_t decoded_bytes = 0;          // of the largest weight that is decoded
  int64_t page_file_bytes = 0;        // disk that a paged optimizer needs
  int64_t checkpoint_bytes = 0;       // disk of one checkpoint
  int64_t trainable = 0;              // parameters that are trained
  StepCost cost;                      // of one optimizer step in which every token is learned
  double useful_flops = 0;            // step_flops(): what limit_share counts

  int64_t arena_bytes() const { return std::max(train_arena.bytes, eval_arena.bytes); }
  int64_t thread_bytes() const;  // what kernels keep of the workspace for every thread
  int64_t total() const;
  int64_t bytes(std::string_view row) const;
};

// Allocates nothing but books. `program` is what is resident beside the planned groups
// (Prepared::program_bytes); 0 leaves its row out. Errors: as load_model and make_trainable.
StepPlan plan_step(const io::ModelFiles& files, const Recipe& recipe, const StepShape& shape,
                   Checkpointing checkpointing, int64_t program = 0);

// The policy that the recipe asks for, or, where memory_limit is set and no policy was given, the fastest
// that fits. Errors: Error{"memory_limit"} when it cannot fit, naming the two cheapest changes of the recipe
// that would.
StepPlan choose_plan(const io::ModelFiles& files, const Recipe& recipe, const StepShape& shape,
                     int64_t program = 0);

// The table shown before the first step and by `nibble plan`.
std::string memory_table(const StepPlan& plan);
// "about 2.4 s a step of 2,048 tokens, 850 tok/s, when every token is learned".
std::string time_line(const StepPlan& plan, int64_t accumulation, const MachineSpeed& speed);
Json plan_json(const StepPlan& plan);

}  // namespace nibble::train
