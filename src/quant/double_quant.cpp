// Double quantization: the block scales of a weight are themselves stored in 8 bits. Source: QLoRA,
// section 3.
#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "base/parallel.h"
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

// Of each of n values how many midpoints lie below it: without branches that would be mispredicted, and side
// by side, so that none waits for another's look-ups.
constexpr size_t kSearches = 16;
void nearest_codes(const std::array<float, 255>& points, const float* x, size_t n, uint8_t* codes) {
  float values[kSearches] = {};
  uint32_t below[kSearches] = {};
  std::copy_n(x, n, values);
  for (uint32_t step = 128; step > 0; step /= 2)
    for (size_t i = 0; i < kSearches; ++i) below[i] += points[below[i] + step - 1] < values[i] ? step : 0;
  for (size_t i = 0; i < n; ++i) codes[i] = static_cast<uint8_t>(below[i]);
}

void quantize_group(std::span<const float> absmax, float offset, uint8_t* codes, float* nested_absmax) {
  float largest = 0;
  for (const float a : absmax) {
    const float magnitude = std::abs(a - offset);
    largest = magnitude > largest || std::isnan(magnitude) ? magnitude : largest;
  }
  *nested_absmax = largest;
  if (largest == 0) {
    std::fill_n(codes, absmax.size(), static_cast<uint8_t>(kZeroCode));
    return;
  }
  const float scale = 1.0f / largest;
  for (size_t begin = 0; begin < absmax.size(); begin += kSearches) {
    const size_t n = std::min(kSearches, absmax.size() - begin);
    float scaled[kSearches];
    for (size_t i = 0; i < n; ++i) scaled[i] = (absmax[begin + i] - offset) * scale;
    nearest_codes(midpoints(), scaled, n, codes + begin);
  }
}

}  // namespace

float double_quantize(std::span<const float> absmax, uint8_t* codes, float* nested_absmax) {
  if (absmax.empty()) return 0;
  const std::vector<double> wide(absmax.begin(), absmax.end());
  const auto offset = static_cast<float>(tree_sum<double>(wide) / static_cast<double>(absmax.size()));
  const auto n = static_cast<int64_t>(absmax.size());
  parallel_for(n, 16 * kNestedBlock, [&](int64_t from, int64_t until) {
    for (int64_t begin = from; begin < until; begin += kNestedBlock) {
      const int64_t count = std::min(until - begin, kNestedBlock);
      quantize_group(absmax.subspan(static_cast<size_t>(begin), static_cast<size_t>(count)), offset,
                     codes + begin, nested_absmax + begin / kNestedBlock);
    }
  });
  return offset;
}

void double_quantize(Weight& w) {
  require(w.format != nullptr && w.format->has_block_scales() && w.absmax.defined(), "quantize",
          "double quantization needs a weight with block scales");
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
