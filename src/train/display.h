// What a person sees of a run, on standard error: one live line on a terminal, plain lines otherwise.
#pragma once
#include <string>

#include "train/metrics.h"

namespace nibble::train {

// "step 12/300  loss 1.2345  lr 2.00e-04  norm 0.310  1,234 tok/s  46% of limit  1.20 GB  4 min 10 s left",
// the fields that fit into `columns` (0: all).
std::string status_line(const StepMetrics& metrics, int64_t total_steps, double seconds_left, int columns);

class Display {
 public:
  // `quiet` shows nothing but warnings.
  Display(bool quiet, bool terminal);
  void text(const std::string& lines);  // a block of its own (the memory table, the gate, the curve)
  // `logged`: a step for which plain output has a line.
  void step(const StepMetrics& metrics, int64_t total_steps, double seconds_left, bool logged);
  void finish_line();  // what follows does not overwrite the live line

 private:
  bool quiet_, terminal_, live_ = false;
};

}  // namespace nibble::train
