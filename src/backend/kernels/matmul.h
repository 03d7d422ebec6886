// Matrix products: packed multiply-adds of our own on the CPU (tested against oneDNN, whose bf16 inputs would
// have to be widened in a pass of their own), cuBLASLt on CUDA. Results do not depend on threads: on the CPU
// each output is one chain of sums over blocks of k that k alone decides.
#pragma once
#include "backend/kernel_slot.h"

namespace nibble::backend {

// In which integers a product is made.
//   kShort: both sides are rounded, A to 14 bits and B to 12 beside the largest of 128 neighbours along k,
//   which adds less than storing them as bf16 did. B may then also be the codes I8 of an int8 weight with the
//   `absmax` F32 of its rows as stored (value = code · absmax / 127). k is even.
//   kByte: B is such codes, which stay as they are; A is rounded to 8 bits beside the largest of 128
//   neighbours along k: each value by at most 1/254 of that. Without transpose_b A is multiplied by absmax
//   before it is rounded. k comes in fours.
// With either A lies as it is.
enum class FixedPoint : uint8_t { kNone, kShort, kByte };
// That of the products which stand beside one in `f`: codes alone are multiplied as bytes.
inline FixedPoint beside(FixedPoint f) { return f == FixedPoint::kByte ? FixedPoint::kNone : f; }

// C = (accumulate ? C : 0) + alpha · op(A) · op(B), row-major; op is transpose where asked.
//   transpose_a: A is [k, m], else [m, k].   transpose_b: B is [n, k], else [k, n].   C [m, n].
// Where A is not transposed it may have columns beyond k, which are not read.
// A and B are F32 or BF16, C F32 or BF16; products of BF16 inputs accumulate in f32, one rounding at the end
// (two with accumulate). Numeric class: rounding (order of the inner sum is the library's).
struct MatmulArgs {
  bool transpose_a = false, transpose_b = false, accumulate = false;
  FixedPoint fixed_point = FixedPoint::kNone;
  float alpha = 1;
  const Tensor* absmax = nullptr;
};
inline KernelSlot<void(Stream&, const Tensor& a, const Tensor& b, Tensor& c, MatmulArgs args)> matmul{
    "matmul"};

// A product of a frozen weight and of a low-rank pair beside it in one pass over X (LoRA, Hu et al. 2021):
//   T = alpha · X · op(P),   C = (accumulate ? C : 0) + X · op(W) + beta · T · op(Q)
// X [m, k], C [m, n], T [m, r]; op transposes all three or none: W [n, k], P [r, k], Q [n, r], or W [k, n], P
// [k, r], Q [r, n]. T takes part in C as it is stored (rounded to its type); C is rounded once, with few rows
// also before the pair is added. Types and numeric class as matmul; with kShort all three products are
// made of integers (the last one where r is even), with kByte that of X and W.
struct LowRankArgs {
  bool transpose = false, accumulate = false;
  FixedPoint fixed_point = FixedPoint::kNone;
  float alpha = 1, beta = 1;
  const Tensor* absmax = nullptr;
};
inline KernelSlot<void(Stream&, const Tensor& x, const Tensor& w, const Tensor& p, const Tensor& q, Tensor& t,
                       Tensor& c, LowRankArgs args)>
    low_rank_matmul{"low_rank_matmul"};

// Gradients of thin factors: G = (accumulate ? G : 0) + alpha · Sᵀ · X.  S [t, r], X [t, n] F32 or BF16; G
// F32 [r, n], or [n, r] where `transpose_out`. Sums run over t in order, in blocks of a fixed size.
struct ThinArgs {
  bool transpose_out = false, accumulate = false;
  float alpha = 1;
};
inline KernelSlot<void(Stream&, const Tensor& s, const Tensor& x, Tensor& g, ThinArgs args)> thin_gradient{
    "thin_gradient"};

// The type in which weights should be decoded for products on this device: the compute type. Where the
// processor has no bf16 product, bf16 weights are widened while they are packed, so decoding them to F32
// would only cost memory.
DType product_dtype(Device device, DType compute);
// Does a product of an F32 A and a BF16 B round A to BF16 first, with more than a few rows? On processors
// that multiply pairs of BF16. What makes A may then as well give it rounded.
bool rounds_left_side(Device device);
// In what quantized weights and those beside them in bf16 are to be multiplied: in kShort on processors
// without a bf16 product, where that is the faster way; int8 weights in kByte on those that have one and
// multiply bytes twice as fast. A base of 16 or 32 bits is multiplied as the floats it is.
FixedPoint fixed_point_of(Device device, DType compute, bool int8);

}  // namespace nibble::backend
