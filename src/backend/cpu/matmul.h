// A product on the CPU as its parts pass it on.
#pragma once
#include <array>

#include "backend/cpu/gemm_step.h"
#include "backend/cpu/local_buffer.h"
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
inline constexpr int64_t kInt8Run = 128;
// Steps of a run; 0: there are no runs.
inline int64_t steps_of_run(Step step) {
  return step == Step::kFixedPoint ? kFixedRun / 2 : of_bytes(step) ? kInt8Run / 4 : 0;
}
// Floats that k steps take in a packed row or column: what belongs to a run follows it.
inline int64_t stored_steps(Step step, int64_t k) {
  const int64_t run = steps_of_run(step);
  return run == 0 ? k : k + (k + run - 1) / run;
}

// How a product of more than kFewRows rows divides B, and the room it asks the stream for, in floats.
struct Packing {
  int64_t block = 0;                   // steps of one pass over a panel
  int64_t slice = 0, slab = 0;         // columns and steps of B that are packed at a time
  Step t_step = Step::kFloat;          // of x · p: the product's, or floats' where that is of bytes
  int64_t t_steps = 0, t_block = 0;    // of k there, and of one block
  Step q_step = Step::kFloat;          // of t · q
  int64_t q_steps = 0, ld_t = 0;       // of r; between the rows of t
  int64_t b = 0, q = 0, p = 0, t = 0;  // one behind the other in the kernel's slot
  int64_t sums = 0;                    // in the partial sums' slot
};
// What is asked of a product (kernels/matmul.h) as its step.
Step step_of(FixedPoint fixed_point);
// Of a product whose step is step_of_product().
Packing packing_of(const Product& product);
Step step_of_product(const Product& product);
// The most that one thread keeps of its own for such a product, also of few rows.
LocalCounts local_counts_of(const Product& product);

// Our own packed multiply-adds. Operands of bf16 are widened while they are packed, or, with many rows on a
// processor that multiplies them, packed as pairs; a f32 A beside a bf16 B is then rounded. Step::kFixedPoint
// asks for integers: of the product, of its t, and of t · q where r is even; a step of bytes for bytes of the
// product alone.
// REQUIRES: with a low_rank, more than kFewRows rows and A as it lies. With integers A as it lies and a whole
// number of steps; an I8 B only there, and nothing else with bytes.
void multiply_packed(Stream& stream, Product product);

}  // namespace nibble::backend::cpu
