#include "train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

namespace nibble::train {
namespace {

struct Row {
  const char* kind;
  int64_t total, warmup_steps;
  double warmup_ratio;
  int64_t step;
  double rate;
};

class Rates : public testing::TestWithParam<Row> {};

TEST_P(Rates, AreThoseOfTheFormula) {
  const Row& r = GetParam();
  const Schedule schedule(r.kind, 2.0, r.total, r.warmup_steps, r.warmup_ratio);
  EXPECT_NEAR(schedule.rate(r.step), r.rate, 1e-12) << r.kind << " step " << r.step;
}

INSTANTIATE_TEST_SUITE_P(Table, Rates,
                         testing::Values(Row{"constant", 100, 0, 0, 1, 2.0}, Row{"constant", 100, 0, 0, 100, 2.0},
                                         // Warm-up under constant, by steps and by ratio (rounded up); steps go first.
                                         Row{"constant", 100, 4, 0, 1, 0.5}, Row{"constant", 100, 4, 0, 4, 2.0},
                                         Row{"constant", 100, 4, 0.5, 5, 2.0}, Row{"constant", 100, 0, 0.03, 1, 2.0 / 3},
                                         Row{"constant", 10, 0, 0.01, 1, 2.0},
                                         // Linear: Transformers' get_linear_schedule_with_warmup at step n - 1.
                                         Row{"linear", 10, 0, 0, 1, 2.0}, Row{"linear", 10, 0, 0, 2, 1.8}, Row{"linear", 10, 0, 0, 10, 0.2},
                                         Row{"linear", 10, 2, 0, 2, 2.0}, Row{"linear", 10, 2, 0, 3, 2.0}, Row{"linear", 10, 2, 0, 4, 1.75},
                                         Row{"linear", 10, 2, 0, 10, 0.25},
                                         // Cosine: half way down at the middle of what follows the warm-up.
                                         Row{"cosine", 10, 0, 0, 1, 2.0}, Row{"cosine", 10, 0, 0, 6, 1.0}, Row{"cosine", 9, 1, 0, 6, 1.0},
                                         Row{"cosine", 10, 0, 0, 10, 1 + std::cos(0.9 * 3.14159265358979323846)},
                                         // A run that was extended keeps falling to zero, never below.
                                         Row{"linear", 10, 0, 0, 12, 0.0}, Row{"constant", 3, 8, 0, 3, 0.75}));

}  // namespace
}  // namespace nibble::train
