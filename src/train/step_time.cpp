#include "train/step_time.h"

#include <algorithm>
#include <string_view>

#include "backend/limits.h"

namespace nibble::train {
namespace {

// Shares of the limits that the step's kernels reach (docs/performance.md, "nibble bench").
constexpr double kProductShare = 0.80;    // thin products and decoding included
constexpr double kShortShare = 0.95;      // the same of 16-bit integers, of the limit of floats
constexpr double kByteShare = 1.2;        // linears with bytes, of the limit of bf16
constexpr double kAttentionShare = 0.55;  // tiles with masks and exponentials
constexpr double kMemoryShare = 0.25;     // of copying, for element-wise operations

}  // namespace

MachineSpeed measured_speed(DType compute) {
  return {backend::matmul_limit_flops(compute), backend::copy_bandwidth()};
}

void StepCost::on_op(const char* name, bool, const Tensor&, double flops, double bytes) {
  const std::string_view op = name;
  if (op == "attention")
    attention_ += flops;
  else if (op == "linear")
    linears_ += flops;
  else if (op == "head_cross_entropy" || op == "head_squared_error")
    heads_ += flops;
  else
    bytes_ += bytes;
}

void StepCost::add_update(double trainable, double state_bytes) {
  bytes_ += trainable * 12 + 2 * state_bytes;
}

void StepCost::repeat(int64_t times) {
  for (double* part : {&linears_, &heads_, &attention_, &bytes_}) *part *= static_cast<double>(times);
}

double StepCost::seconds(const MachineSpeed& speed) const {
  const double flops = std::max(speed.products, 1.0), bandwidth = std::max(speed.bandwidth, 1.0);
  const double head_share = fixed_point_ == backend::FixedPoint::kShort ? kShortShare : kProductShare,
               share = fixed_point_ == backend::FixedPoint::kByte ? kByteShare : head_share;
  return linears_ / (share * flops) + heads_ / (head_share * flops) + attention_ / (kAttentionShare * flops) +
         bytes_ / (kMemoryShare * bandwidth);
}

}  // namespace nibble::train
