// The two ways a product runs on the CPU.
#pragma once
#include "backend/kernels/matmul.h"

namespace nibble::backend::cpu {

// Row-major operands; ld: values between stored rows.
struct Matrix {
  const void* data = nullptr;
  DType dtype = kF32;
  int64_t ld = 0;
  bool transposed = false;
};
struct Product {
  int64_t m = 0, n = 0, k = 0;
  Matrix a, b;        // op(A) [m, k], op(B) [k, n]
  void* c = nullptr;  // [m, n], rows ldc apart
  DType c_dtype = kF32;
  int64_t ldc = 0;
  float alpha = 1;
  bool accumulate = false;
};

// Our own packed f32 multiply-adds; bf16 operands are widened while they are packed.
void multiply_f32(Stream& stream, const Product& product);
// oneDNN's bf16 product in fixed tiles; REQUIRES: native_bf16(), both operands bf16.
void multiply_bf16(Stream& stream, const Product& product);
// Does this processor multiply bf16 (AVX512_BF16 or AMX), and oneDNN use it?
bool native_bf16();

}  // namespace nibble::backend::cpu
