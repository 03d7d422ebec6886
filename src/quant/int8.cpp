// LLM.int8's weights: each row in 255 even levels of its largest magnitude. Source: arXiv 2208.07339 and
// bitsandbytes' int8_vectorwise_quant / _dequant, with their order of operations.
#include <cmath>

#include "quant/parts.h"

namespace nibble::quant {

void encode_int8(std::span<const float> values, Weight& w) {
  const int64_t cols = w.cols();
  for (int64_t r = 0; r < w.rows(); ++r) {
    const auto row = values.subspan(static_cast<size_t>(r * cols), static_cast<size_t>(cols));
    const float largest = largest_magnitude(row), scale = 127.0f / largest;
    w.absmax.data<float>()[r] = largest;
    int8_t* q = w.codes.data<int8_t>() + r * cols;
    for (size_t i = 0; i < row.size(); ++i) {
      const float x = std::nearbyint(row[i] * scale);
      q[i] = std::abs(x) <= 127.0f ? static_cast<int8_t>(x)
                                   : int8_t{0};  // 0: NaN, of an all-zero row or of the input
    }
  }
}

void decode_int8_row(const Weight& w, int64_t row, float* out) {
  constexpr float kUnit = 7.874015718698502e-3f;  // 1 / 127
  const int64_t cols = w.cols();
  const auto* q = w.codes.data<int8_t>() + row * cols;
  const auto absmax = load_at<float>(w.absmax.raw(), row);
  for (int64_t i = 0; i < cols; ++i) out[i] = static_cast<float>(q[i]) * absmax * kUnit;
}

}  // namespace nibble::quant
