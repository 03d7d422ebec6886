#include "train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

namespace nibble::train {
namespace {

struct ScheduleRow {
  const char* kind;
  int64_t total, warmup_steps;
  double warmup_ratio;
  int64_t step;
  double rate;
};

class Rates : public testing::TestWithParam<ScheduleRow> {};

TEST_P(Rates, AreThoseOfTheFormula) {
  const ScheduleRow& r = GetParam();
  const Schedule schedule(r.kind, 2.0, r.total, r.warmup_steps, r.warmup_ratio);
  EXPECT_NEAR(schedule.rate(r.step), r.rate, 1e-12) << r.kind << " step " << r.step;
}

INSTANTIATE_TEST_SUITE_P(
    Table, Rates,
    testing::Values(ScheduleRow{"constant", 100, 0, 0, 1, 2.0}, ScheduleRow{"constant", 100, 0, 0, 100, 2.0},
                    // Warm-up under constant, by steps and by ratio (rounded up); steps go first.
                    ScheduleRow{"constant", 100, 4, 0, 1, 0.5}, ScheduleRow{"constant", 100, 4, 0, 4, 2.0},
                    ScheduleRow{"constant", 100, 4, 0.5, 5, 2.0},
                    ScheduleRow{"constant", 100, 0, 0.03, 1, 2.0 / 3},
                    ScheduleRow{"constant", 10, 0, 0.01, 1, 2.0},
                    // Linear: Transformers' get_linear_schedule_with_warmup at step n - 1.
                    ScheduleRow{"linear", 10, 0, 0, 1, 2.0}, ScheduleRow{"linear", 10, 0, 0, 2, 1.8},
                    ScheduleRow{"linear", 10, 0, 0, 10, 0.2}, ScheduleRow{"linear", 10, 2, 0, 2, 2.0},
                    ScheduleRow{"linear", 10, 2, 0, 3, 2.0}, ScheduleRow{"linear", 10, 2, 0, 4, 1.75},
                    ScheduleRow{"linear", 10, 2, 0, 10, 0.25},
                    // Cosine: half way down at the middle of what follows the warm-up.
                    ScheduleRow{"cosine", 10, 0, 0, 1, 2.0}, ScheduleRow{"cosine", 10, 0, 0, 6, 1.0},
                    ScheduleRow{"cosine", 9, 1, 0, 6, 1.0},
                    ScheduleRow{"cosine", 10, 0, 0, 10, 1 + std::cos(0.9 * 3.14159265358979323846)},
                    // A run that was extended keeps falling to zero, never below.
                    ScheduleRow{"linear", 10, 0, 0, 12, 0.0}, ScheduleRow{"constant", 3, 8, 0, 3, 0.75}));

}  // namespace
}  // namespace nibble::train
