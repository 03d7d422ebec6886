// How long a step takes: what its operations ask of the machine, counted in the plan's dry run, at the speeds
// that the machine was measured to have.
#pragma once
#include "autograd/context.h"
#include "backend/kernels/matmul.h"

namespace nibble::train {

struct MachineSpeed {
  double products = 0;   // FLOP/s of large products (backend::matmul_limit_flops)
  double bandwidth = 0;  // bytes/s of copying (backend::copy_bandwidth)
};
// Of computing in `compute`. About a second. Measured once a process.
MachineSpeed measured_speed(DType compute);

class StepCost : public autograd::OpObserver {
 public:
  void on_op(const char* name, bool backward, const Tensor& result, double flops, double bytes) override;
  // The update: parameters, gradients and state are read, parameters and state written.
  void add_update(double trainable, double state_bytes);
  void repeat(int64_t times);
  // Products of the base are made of integers (kernels/matmul.h), which the limit does not count; those of
  // its head are with kShort.
  void use_fixed_point(backend::FixedPoint fixed_point) { fixed_point_ = fixed_point; }

  // Recomputation and attention included.
  double flops() const { return linears_ + heads_ + attention_; }
  double seconds(const MachineSpeed& speed) const;

 private:
  double linears_ = 0, heads_ = 0, attention_ = 0;  // FLOPs
  double bytes_ = 0;                                // of operations that memory limits
  backend::FixedPoint fixed_point_ = backend::FixedPoint::kNone;
};

}  // namespace nibble::train
