// What a run is at a step boundary, written and read back bit for bit: trained parameters, optimizer state, counters.
// The position in the data is the step itself (data/steps.h), random numbers are counter-based.
//
// Files of a checkpoint directory: state.json; parameters.safetensors (f32, by parameter name); optimizer.safetensors
// (Optimizer::state_layout()); and for LoRA the adapter in PEFT's format, so that a checkpoint can be used as it is.
#pragma once
#include <string>
#include <vector>

#include "autograd/variable.h"
#include "train/optimizer.h"

namespace nibble::train {

struct RunState {
  int64_t step = 0;             // optimizer steps done
  int64_t updates = 0;          // of them not skipped: AdamW's t
  int64_t tokens = 0, trained_tokens = 0;
  int64_t best_step = 0;        // of the lowest held-out loss so far; 0: none
  double best_loss = 0;
};

void write_state(const std::string& directory, const RunState& state, const std::vector<autograd::Parameter*>& parameters,
                 Optimizer& optimizer);
// Errors: Error{file}: missing or damaged files, parameters of another shape.
RunState read_state(const std::string& directory, const std::vector<autograd::Parameter*>& parameters, Optimizer& optimizer);

}  // namespace nibble::train
