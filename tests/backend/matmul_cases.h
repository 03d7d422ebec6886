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

// Element [r, c] of a matrix [rows, cols], or of its transposition as it is stored.
inline double at(const std::vector<float>& v, bool transposed, int64_t rows, int64_t cols, int64_t r,
                 int64_t c) {
  return v[static_cast<size_t>(transposed ? c * rows + r : r * cols + c)];
}

}  // namespace nibble::backend
