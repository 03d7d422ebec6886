// Ticks of a plot's axis.
#pragma once
#include <algorithm>
#include <cmath>

namespace nibble {

// A distance between ticks of 1, 2 or 5 times a power of ten that gives at most `count` of them over `span`.
inline double tick_distance(double span, int count) {
  const double raw = std::max(span, 1e-12) / count, power = std::pow(10.0, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (power * factor >= raw) return power * factor;
  return power * 10;
}

}  // namespace nibble
