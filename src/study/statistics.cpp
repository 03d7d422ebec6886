#include "study/statistics.h"

#include <cmath>
#include <iterator>

namespace nibble::study {

double t_quantile(int64_t degrees) {
  static constexpr double kTable[] = {12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060,
                                      2.2622,  2.2281, 2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199,
                                      2.1098,  2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639,
                                      2.0595,  2.0555, 2.0518, 2.0484, 2.0452, 2.0423};
  if (degrees < 1) return INFINITY;
  if (degrees <= static_cast<int64_t>(std::size(kTable))) return kTable[degrees - 1];
  // Cornish-Fisher expansion around the normal quantile (Abramowitz & Stegun 26.7.5).
  const double z = 1.959963984540054, n = static_cast<double>(degrees);
  const double g1 = (std::pow(z, 3) + z) / 4, g2 = (5 * std::pow(z, 5) + 16 * std::pow(z, 3) + 3 * z) / 96;
  return z + g1 / n + g2 / (n * n);
}

Summary summarize(const std::vector<double>& values) {
  Summary s;
  s.count = static_cast<int64_t>(values.size());
  for (const double v : values) s.mean += v;
  s.mean /= static_cast<double>(s.count);
  if (s.count < 2) return s;
  double squares = 0;
  for (const double v : values) squares += (v - s.mean) * (v - s.mean);
  const auto n = static_cast<double>(s.count);
  s.half = t_quantile(s.count - 1) * std::sqrt(squares / (n - 1) / n);
  return s;
}

}  // namespace nibble::study
