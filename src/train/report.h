// What a run leaves to look at: the loss curve in the terminal and as an SVG.
#pragma once
#include <string>
#include <vector>

#include "train/metrics.h"

namespace nibble::train {

// Braille dots, `columns` wide and `rows` high, with the range of losses at the left; "" for fewer than two
// steps.
std::string loss_curve(const std::vector<StepMetrics>& steps, int columns, int rows);

// Training loss (raw, and smoothed when there are many steps) and evaluation points over steps.
std::string loss_svg(const std::vector<StepMetrics>& steps, const std::vector<EvalMetrics>& evals,
                     const std::string& title);

}  // namespace nibble::train
