// How far a converted weight is from what it was made of, summed over any number of weights.
#pragma once
#include <string>

#include "backend/stream.h"
#include "base/json_fwd.h"
#include "io/weights.h"
#include "quant/weight.h"

namespace nibble::cli {

struct WeightError {
  double squared = 0, power = 0, max_abs = 0;  // Σ error², Σ value², max |error|
  int64_t values = 0;

  void add(const WeightError& other);
  double relative() const;  // ‖error‖ / ‖values‖
  double rmse() const;
  double snr_db() const;  // 0 when there is no error, or nothing to err about
  Json json() const;
};

// Decodes both in pieces. Errors: Error{name} for values that are not finite.
WeightError measure_error(backend::Stream& stream, const quant::Weight& original,
                          const quant::Weight& converted, const std::string& name);

// Whether `--quantize` applies to this tensor, by name and shape alone: a matrix that is no embedding and no
// head.
bool is_linear(const io::WeightInfo& info);

}  // namespace nibble::cli
