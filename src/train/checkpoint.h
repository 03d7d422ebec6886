// What a run is at a step boundary, written and read back bit for bit: trained parameters, optimizer state,
// counters. The position in the data is the step itself (data/steps.h), random numbers are counter-based.
//
// A checkpoint (io/train_state.h) holds the parameters as its tensors and the counters as its scalars; beside
// them stand optimizer.safetensors (Optimizer::state_layout(), streamed from its pages) and, for LoRA, the
// adapter in PEFT's format, so that a checkpoint can be used as an adapter.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "autograd/variable.h"
#include "train/optimizer.h"

namespace nibble::train {

struct RunState {
  int64_t step = 0;     // optimizer steps done
  int64_t updates = 0;  // of them not skipped: AdamW's t
  int64_t tokens = 0, trained_tokens = 0;
  int64_t best_step = 0;  // of the lowest held-out loss so far; 0: none
  double best_loss = 0;
};

// `also` writes further files into the checkpoint.
void save_state(const std::string& run_directory, const RunState& state,
                const std::vector<autograd::Parameter*>& parameters, Optimizer& optimizer,
                const std::function<void(const std::string& directory)>& also);
// Errors: Error{file}: missing or damaged files, parameters of another shape.
RunState load_state(const std::string& checkpoint, const std::vector<autograd::Parameter*>& parameters,
                    Optimizer& optimizer);

}  // namespace nibble::train
