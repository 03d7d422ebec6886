// The 8-bit "dynamic" code: a decimal exponent of varying length and a linear fraction in the bits it leaves.
// Source: 8-Bit Approximations for Parallelism in Deep Learning (arXiv 1511.04561), as bitsandbytes'
// create_dynamic_map computes it; every step is one f32 operation there, and so it is here.
#include <algorithm>
#include <array>
#include <cmath>

#include "quant/weight.h"

namespace nibble::quant {
namespace {

// torch.linspace(0.1, 1, n) where the CPU has AVX2: from the start in the lower half, from the end in the
// upper, with fused multiply-adds.
float linspace(int i, int n) {
  const float start = 0.1f, end = 1.0f, step = (end - start) / static_cast<float>(n - 1);
  return i < n / 2 ? std::fma(step, static_cast<float>(i), start)
                   : std::fma(-step, static_cast<float>(n - 1 - i), end);
}

std::array<float, 256> make_dynamic_map(bool is_signed) {
  constexpr float kPowers[] = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1.0f};
  std::array<float, 256> map{};
  size_t n = 0;
  for (int i = 0; i < 7; ++i) {
    const int items = 1 << (is_signed ? i : i + 1);
    for (int k = 0; k < items; ++k) {
      const float mean = (linspace(k, items + 1) + linspace(k + 1, items + 1)) / 2.0f;
      map[n++] = kPowers[i] * mean;
      if (is_signed) map[n++] = -kPowers[i] * mean;
    }
  }
  map[n++] = 0;
  map[n++] = 1;
  std::sort(map.begin(), map.end());
  return map;
}

}  // namespace

std::span<const float> dynamic_map_signed() {
  static const std::array<float, 256> map = make_dynamic_map(true);
  return map;
}

std::span<const float> dynamic_map_unsigned() {
  static const std::array<float, 256> map = make_dynamic_map(false);
  return map;
}

}  // namespace nibble::quant
