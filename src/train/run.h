// A whole run: gate, plan, run directory, training with evaluation and checkpoints, report.
#pragma once
#include <string>
#include <vector>

#include "base/json_fwd.h"
#include "train/metrics.h"
#include "train/plan.h"
#include "train/prepare.h"

namespace nibble::train {

struct RunOptions {
  bool resume = false;
  bool overwrite = false;  // an earlier run in `out` may be replaced
  bool quiet = false;
  double started = 0;  // now_seconds() when the program started, for the time to the first step
};

struct RunResult {
  std::vector<StepMetrics> steps;  // every step of this run, those before a resume as far as they were logged
  std::vector<EvalMetrics> evals;
  int64_t total_steps = 0, skipped = 0, best_step = 0;
  double best_loss = 0;
  double seconds = 0, seconds_to_first_step = 0;
  double tokens_per_second = 0, limit_share = 0;  // over all steps but the first of this process
  double matmul_limit = 0;                        // FLOP/s measured in this run
  uint64_t peak_rss_bytes = 0;
  StepPlan plan;
  std::string out;
  Json to_json() const;
};

// Errors: everything of the parts. Interrupted after Ctrl-C or SIGTERM, when a checkpoint holds every
// finished step.
RunResult run_training(const Prepared& prepared, const RunOptions& options);

}  // namespace nibble::train
