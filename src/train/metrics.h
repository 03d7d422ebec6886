// metrics.jsonl: one JSON object a line for each logged step, and one for each evaluation ({"step", "epoch",
// "eval_loss"}).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace nibble::train {

struct StepMetrics {
  int64_t step = 0;
  double epoch = 0;  // at the end of the step
  double loss = 0;   // mean over the trained tokens of the step
  double learning_rate = 0;
  double grad_norm = 0;                    // before clipping
  int64_t tokens = 0, trained_tokens = 0;  // of the step
  double tokens_per_second = 0;            // of the step
  double limit_share =
      0;  // FLOPs of the step / time / measured matrix-product limit; 0 when that is not known
  uint64_t rss_bytes = 0;
};

struct EvalMetrics {
  int64_t step = 0;
  double epoch = 0, loss = 0;  // mean NLL over the trained tokens of the held-out data
};

class MetricsFile {
 public:
  // Keeps the lines of steps up to `last_step` that a resumed run goes on from (0: starts an empty file);
  // what a killed run wrote after them is removed. Errors: Error{path}.
  MetricsFile(std::string path, int64_t last_step);
  ~MetricsFile();
  MetricsFile(const MetricsFile&) = delete;
  MetricsFile& operator=(const MetricsFile&) = delete;
  void add(const StepMetrics& step);
  void add(const EvalMetrics& eval);

  // What the file held when it was opened, for the curve of a resumed run.
  const std::vector<StepMetrics>& earlier_steps() const { return steps_; }
  const std::vector<EvalMetrics>& earlier_evals() const { return evals_; }

 private:
  void write(const std::string& line);
  std::string path_;
  int fd_ = -1;
  std::vector<StepMetrics> steps_;
  std::vector<EvalMetrics> evals_;
};

}  // namespace nibble::train
