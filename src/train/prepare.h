// Everything a run needs before its model: checked recipe, model files, tokenizer and template, encoded data.
#pragma once
#include <memory>

#include "data/dataset.h"
#include "data/steps.h"
#include "io/weights.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"
#include "train/recipe.h"
#include "train/step.h"

namespace nibble::train {

struct Prepared {
  Recipe recipe;
  io::ModelFiles files;
  models::ModelConfig config;
  std::shared_ptr<const text::Tokenizer> tokenizer;  // null when the examples came encoded
  data::Dataset dataset;
  int64_t program_bytes = 0;  // resident when all this was ready: what the plan's groups come on top of

  int64_t max_seq_length() const { return dataset.report.max_seq_length; }
  data::StepOptions step_options() const;
  data::StepStream steps() const;  // refers to `dataset`
  StepShape shape() const;
  // Optimizer steps of the run: max_steps, or what num_train_epochs comes to.
  int64_t total_steps(const data::StepStream& stream) const;
};

// Reads and checks; settles the task (recipe.task is none of auto afterwards), for which an encoder gets a
// head of as many labels as the data's task has, by the recipe's seed; sets the number of threads. Errors:
// everything of its parts; ids outside the model's vocabulary.
Prepared prepare(Recipe recipe);

// The same without data: one step's worth of random tokens, every sequence max_seq_length long (512 where it
// is not given) and every token of it learned. For measuring.
Prepared prepare_synthetic(Recipe recipe);

// What the gate shows before the first step: counts, one example with its mask. Errors: no token is trained.
std::string show_gate(const Prepared& prepared, bool colour);

}  // namespace nibble::train
