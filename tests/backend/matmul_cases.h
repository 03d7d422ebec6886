// What the tests of products share.
#pragma once
#include "tests/backend/kernel_cases.h"

namespace nibble::backend {

// Sizes of a product, and of one with a low-rank pair beside it.
struct MatmulCase {
  int64_t m, n, k;
};

struct LowRankCase {
  int64_t m, n, k, r;
};

// The codes of an int8 weight [rows, cols] and its absmax.
struct Int8Weight {
  Tensor codes, absmax;
  Int8Weight(int64_t rows, int64_t cols)
      : codes(Tensor::empty(host_allocator(), {rows, cols}, kI8, "codes")),
        absmax(random_tensor({rows}, kF32, 9)) {
    const auto v = normal_values(rows * cols, 8);
    for (int64_t i = 0; i < rows * cols; ++i)
      codes.data<int8_t>()[i] =
          static_cast<int8_t>(std::clamp(v[static_cast<size_t>(i)] * 2000, -127.0f, 127.0f));
    for (int64_t r = 0; r < rows; ++r) absmax.data<float>()[r] = std::abs(absmax.data<float>()[r]) + 0.1f;
  }
  Tensor values() const {
    Tensor w = Tensor::empty(host_allocator(), codes.shape(), kF32, "w");
    for (int64_t i = 0; i < codes.numel(); ++i)
      w.data<float>()[i] =
          static_cast<float>(codes.data<int8_t>()[i]) * absmax.data<float>()[i / codes.size(1)] / 127;
    return w;
  }
};

// Element [r, c] of a matrix [rows, cols], or of its transposition as it is stored.
inline double at(const std::vector<float>& v, bool transposed, int64_t rows, int64_t cols, int64_t r,
                 int64_t c) {
  return v[static_cast<size_t>(transposed ? c * rows + r : r * cols + c)];
}

}  // namespace nibble::backend
