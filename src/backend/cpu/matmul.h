// A product on the CPU as its parts pass it on.
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

}  // namespace nibble::backend::cpu
