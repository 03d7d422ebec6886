// Shape checks that several operations share.
#pragma once
#include "autograd/context.h"

namespace nibble::ops {

inline void require_same_shape(const char* op, const autograd::Variable& a, const autograd::Variable& b) {
  require(a.shape() == b.shape(), op, "shapes {} and {} should be equal", a.shape(), b.shape());
}

// [rows, columns] of a matrix.
inline std::pair<int64_t, int64_t> require_matrix(const char* op, const Shape& shape) {
  require(shape.rank() == 2, op, "expected a matrix, got {}", shape);
  return {shape[0], shape[1]};
}

}  // namespace nibble::ops
