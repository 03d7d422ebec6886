// What a study says about repeated results: mean with a 95 % interval over seeds, paired differences.
#pragma once
#include <cstdint>
#include <vector>

namespace nibble::study {

struct Summary {
  double mean = 0;
  double half = 0;  // half width of the 95 % interval (Student's t); 0 for fewer than two values
  int64_t count = 0;
};

// REQUIRES: at least one value.
Summary summarize(const std::vector<double>& values);

// The 97.5 % quantile of Student's t with that many degrees of freedom (≥ 1), to 4 digits.
double t_quantile(int64_t degrees);

}  // namespace nibble::study
