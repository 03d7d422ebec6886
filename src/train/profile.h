// Where the time of a training step goes: every operation with its own limit, and every kind of kernel call.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/json_fwd.h"
#include "train/engine.h"

namespace nibble::train {

// What the machine can do, measured in the same run.
struct MachineLimits {
  DType type = kF32;     // of the library's products (backend::limit_dtype)
  double products = 0;   // their FLOP/s on the step's own large shapes
  double bandwidth = 0;  // bytes/s of copying
};

struct ProfileRow {
  std::string name;  // "linear" and "linear, backward"; of a kernel "matmul [2048, 576] · [576, 1536]"
  int64_t calls = 0;
  double seconds = 0, flops = 0, bytes = 0;
  // Seconds this would take at the limits: the longer of its FLOPs and its bytes.
  double limit_seconds(const MachineLimits& limits) const;
};

struct StepProfile {
  MachineLimits limits;
  double seconds = 0;  // of a step, median of those that nobody watched
  double flops = 0;    // of that step: products of the base and the adapter, head at its labels, attention
  double limit_seconds = 0;    // flops at limits.products
  double watched = 0;          // seconds of the step that the rows are of
  std::vector<double> rounds;  // share of the limit, one per round
  double first_ended = 0;      // now_seconds() after the first step
  uint64_t peak_bytes = 0;     // resident, before any limit was measured
  int64_t tokens = 0, trained_tokens = 0;
  std::vector<ProfileRow> ops, kernels;  // by time, longest first
  double share() const;                  // median of the rounds
};

// One step to warm up, `rounds` steps with the limit measured after each, and one step that is watched.
StepProfile profile_step(Engine& engine, const data::StepBatch& batch, int rounds);

std::string profile_table(const StepProfile& profile);
Json profile_json(const StepProfile& profile);

}  // namespace nibble::train
