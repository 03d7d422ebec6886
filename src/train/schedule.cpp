#include "train/schedule.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace nibble::train {

Schedule::Schedule(const std::string& kind, double peak, int64_t total, int64_t warmup_steps,
                   double warmup_ratio)
    : kind_(kind == "cosine"   ? ScheduleKind::kCosine
            : kind == "linear" ? ScheduleKind::kLinear
                               : ScheduleKind::kConstant),
      peak_(peak),
      total_(total) {
  require(total >= 1, "schedule", "a run has at least one step, got {}", total);
  warmup_ = warmup_steps > 0
                ? warmup_steps
                : static_cast<int64_t>(std::ceil(warmup_ratio * static_cast<double>(total) - 1e-9));
}

double Schedule::rate(int64_t step) const {
  if (step <= warmup_) return peak_ * static_cast<double>(step) / static_cast<double>(warmup_);
  if (kind_ == ScheduleKind::kConstant) return peak_;
  const double left = static_cast<double>(std::max<int64_t>(total_ - warmup_, 1));
  const double done = std::min(static_cast<double>(step - 1 - warmup_) / left, 1.0);
  return kind_ == ScheduleKind::kLinear ? peak_ * (1 - done)
                                        : peak_ * 0.5 * (1 + std::cos(3.14159265358979323846 * done));
}

}  // namespace nibble::train
