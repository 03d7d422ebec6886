// Learning rate by step. Steps count from 1 to `total`.
//
//   warm-up   n ≤ w:  peak · n / w           (the first step learns already; Transformers' first rate is 0)
//   constant  n > w:  peak                   (honours the warm-up, unlike Transformers' "constant")
//   linear    n > w:  peak · (total - (n - 1)) / (total - w)
//   cosine    n > w:  peak · ½ (1 + cos π (n - 1 - w) / (total - w))
// After the warm-up linear and cosine equal Transformers' get_linear/cosine_schedule_with_warmup at its step
// n - 1.
#pragma once
#include <cstdint>
#include <string>

namespace nibble::train {

enum class ScheduleKind : uint8_t { kConstant, kLinear, kCosine };

class Schedule {
 public:
  // warmup_steps > 0 goes before warmup_ratio, of which the steps are rounded up. REQUIRES: total >= 1.
  Schedule(const std::string& kind, double peak, int64_t total, int64_t warmup_steps, double warmup_ratio);
  double rate(int64_t step) const;
  int64_t warmup() const { return warmup_; }

 private:
  ScheduleKind kind_;
  double peak_;
  int64_t total_, warmup_;
};

}  // namespace nibble::train
