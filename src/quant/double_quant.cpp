// Double quantization: the block scales of a weight are themselves stored in 8 bits. Source: QLoRA,
// section 3.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "base/error.h"
#include "base/reduce.h"
#include "quant/parts.h"

namespace nibble::quant {
namespace {

constexpr int64_t kNestedBlock = 256;
constexpr int kZeroCode = 127;

// Midpoints of the map's neighbours; a value takes the number of midpoints below it.
const std::array<float, 255>& midpoints() {
  static const std::array<float, 255> points = [] {
    std::array<float, 255> p{};
    const auto map = dynamic_map_signed();
    for (size_t i = 0; i < 255; ++i) p[i] = (map[i] + map[i + 1]) * 0.5f;
    return p;
  }();
  return points;
}

}  // namespace

float double_quantize(std::span<const float> absmax, uint8_t* codes, float* nested_absmax) {
  if (absmax.empty()) return 0;
  const std::vector<double> wide(absmax.begin(), absmax.end());
  const auto offset = static_cast<float>(tree_sum<double>(wide) / static_cast<double>(absmax.size()));
  const auto& points = midpoints();
  const auto n = static_cast<int64_t>(absmax.size());
  for (int64_t begin = 0; begin < n; begin += kNestedBlock) {
    const int64_t end = std::min(n, begin + kNestedBlock);
    float largest = 0;
    for (int64_t i = begin; i < end; ++i) {
      const float a = std::abs(absmax[static_cast<size_t>(i)] - offset);
      largest = a > largest || std::isnan(a) ? a : largest;
    }
    nested_absmax[begin / kNestedBlock] = largest;
    const float scale = 1.0f / largest;
    for (int64_t i = begin; i < end; ++i) {
      const float x = (absmax[static_cast<size_t>(i)] - offset) * scale;
      codes[i] =
          largest == 0
              ? kZeroCode
              : static_cast<uint8_t>(std::lower_bound(points.begin(), points.end(), x) - points.begin());
    }
  }
  return offset;
}

void double_quantize(Weight& w) {
  require(w.format != nullptr && w.format->kind == Kind::kCodebook4 && w.absmax.defined(), "quantize",
          "double quantization needs a 4-bit weight with block scales");
  const int64_t blocks = w.block_count();
  w.absmax_codes = Tensor::empty(host_allocator(), {blocks}, kU8, "weight.absmax_codes");
  w.nested_absmax = Tensor::empty(host_allocator(), {(blocks + kNestedBlock - 1) / kNestedBlock}, kF32,
                                  "weight.nested_absmax");
  const auto map = dynamic_map_signed();
  w.nested_map = Tensor::borrow(map.data(), {256}, kF32, nullptr);
  w.nested_offset = double_quantize({w.absmax.data<float>(), static_cast<size_t>(blocks)},
                                    w.absmax_codes.data<uint8_t>(), w.nested_absmax.data<float>());
  w.absmax = {};
}

float block_absmax(const Weight& w, int64_t i) {
  if (!w.double_quantized()) return load_at<float>(w.absmax.raw(), i);
  const auto code = load_at<uint8_t>(w.absmax_codes.raw(), i);
  return load_at<float>(w.nested_map.raw(), code) * load_at<float>(w.nested_absmax.raw(), i / kNestedBlock) +
         w.nested_offset;
}

}  // namespace nibble::quant
