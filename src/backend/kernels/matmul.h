// Matrix products. A library's work (oneDNN on the CPU, cuBLASLt on CUDA), cut so that results do not depend on threads:
// the output is divided into fixed tiles, a long inner dimension over few outputs into fixed chunks summed in order.
#pragma once
#include "backend/kernel_slot.h"

namespace nibble::backend {

// C = (accumulate ? C : 0) + alpha · op(A) · op(B), row-major; op is transpose where asked.
//   transpose_a: A is [k, m], else [m, k].   transpose_b: B is [n, k], else [k, n].   C [m, n].
// A and B are F32 or BF16, C F32 or BF16; products of BF16 inputs accumulate in f32, one rounding at the end (two with
// accumulate). Numeric class: rounding (order of the inner sum is the library's).
struct MatmulArgs {
  bool transpose_a = false, transpose_b = false, accumulate = false;
  float alpha = 1;
};
inline KernelSlot<void(Stream&, const Tensor& a, const Tensor& b, Tensor& c, MatmulArgs args)> matmul{"matmul"};

// The type in which weights should be decoded for products on this device: BF16 where the processor multiplies it
// natively and compute is BF16, else F32. The same on the meta device as on the one it stands for.
DType product_dtype(Device device, DType compute);

}  // namespace nibble::backend
