// Matrix products: packed multiply-adds of our own on the CPU (tested against oneDNN, whose bf16 inputs would have to be
// widened in a pass of their own), cuBLASLt on CUDA. Results do not depend on threads: on the CPU each output is one chain
// of sums over blocks of k that k alone decides.
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

// The type in which weights should be decoded for products on this device: the compute type. Where the processor has no
// bf16 product, bf16 weights are widened while they are packed, so decoding them to F32 would only cost memory.
DType product_dtype(Device device, DType compute);

}  // namespace nibble::backend
