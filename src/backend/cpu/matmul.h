// A product on the CPU as its parts pass it on.
#pragma once
#include "backend/cpu/gemm_step.h"
#include "backend/kernels/matmul.h"

namespace nibble::backend::cpu {

// Row-major operands; ld: values between stored rows.
struct Matrix {
  const void* data = nullptr;
  DType dtype = kF32;
  int64_t ld = 0;
  bool transposed = false;
  const float* absmax = nullptr;  // of int8 codes: values are code · absmax[row as stored] / 127
};
// A low-rank product beside a large one of the same A: t = alpha · A · p [m, r], and C gets beta · t · q
// more.
struct LowRank {
  int64_t r = 0;
  Matrix p, q;        // op(p) [k, r], op(q) [r, n]
  void* t = nullptr;  // [m, r], rounded to t_dtype before it is multiplied with q
  DType t_dtype = kF32;
  float alpha = 1, beta = 1;
};
struct Product {
  int64_t m = 0, n = 0, k = 0;
  Matrix a, b;        // op(A) [m, k], op(B) [k, n]
  void* c = nullptr;  // [m, n], rows ldc apart
  DType c_dtype = kF32;
  int64_t ldc = 0;
  float alpha = 1;
  bool accumulate = false;
  const LowRank* low_rank = nullptr;
  Step step = Step::kFloat;
  int64_t steps() const { return k / values_of(step); }
};

// Up to here columns are divided among threads instead of rows.
inline constexpr int64_t kFewRows = 96;
// Values of k that share a scale in fixed point.
inline constexpr int64_t kFixedRun = 128;
// The same where bytes are multiplied.
inline constexpr int64_t kByteRun = 256;
// Steps of a run; 0: there are no runs.
inline int64_t steps_of_run(Step step) {
  return step == Step::kFixedPoint ? kFixedRun / 2 : of_bytes(step) ? kByteRun / 4 : 0;
}
// Floats that k steps take in a packed row or column: what belongs to a run follows it.
inline int64_t stored_steps(Step step, int64_t k) {
  const int64_t run = steps_of_run(step);
  return run == 0 ? k : k + (k + run - 1) / run;
}

// Our own packed multiply-adds. Operands of bf16 are widened while they are packed, or, with many rows on a
// processor that multiplies them, packed as pairs; a f32 A beside a bf16 B is then rounded. Step::kFixedPoint
// asks for integers: of the product, of its t, and of t · q where r is even; a step of bytes for bytes of the
// product alone.
// REQUIRES: with a low_rank, more than kFewRows rows and A as it lies. With integers A as it lies and a whole
// number of steps; an I8 B only there, and nothing else with bytes.
void multiply_packed(Stream& stream, Product product);

}  // namespace nibble::backend::cpu
