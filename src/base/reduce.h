// Sums whose result depends on the values and their number alone, never on threads or alignment.
#pragma once
#include <cstdint>
#include <span>

namespace nibble {

// Pairwise sum over a fixed binary tree (halves split at the largest power of two below n). T is float or
// double.
template <class T>
T tree_sum(std::span<const T> values) {
  if (values.empty()) return T(0);
  if (values.size() <= 8) {
    T s = values[0];
    for (size_t i = 1; i < values.size(); ++i) s += values[i];
    return s;
  }
  size_t half = 8;
  while (half * 2 < values.size()) half *= 2;
  return tree_sum(values.subspan(0, half)) + tree_sum(values.subspan(half));
}

}  // namespace nibble
