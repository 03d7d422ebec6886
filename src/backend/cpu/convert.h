// Conversion between float types for other kernels of this folder; see cast.cpp.
#pragma once
#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace nibble::backend::cpu {

// n values at `in` (F32, F16 or BF16, any alignment) to `to` at `out`, in the calling thread.
void convert_values(DType from, const std::byte* in, int64_t n, DType to, std::byte* out);

}  // namespace nibble::backend::cpu
