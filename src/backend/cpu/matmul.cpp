#include "backend/cpu/matmul.h"

#include <cstring>

#include "backend/cpu/kernels.h"

namespace nibble::backend {

DType product_dtype(Device, DType compute) { return compute; }
bool rounds_left_side(Device) { return cpu::bf16_step() != cpu::Step::kFloat; }
// In f32 the answer wanted is that of the decoded weight to the last bits.
FixedPoint fixed_point_of(Device, DType compute, bool int8) {
  if (compute != kBF16) return FixedPoint::kNone;
  if (cpu::bf16_step() == cpu::Step::kFloat) return FixedPoint::kShort;
  return int8 && cpu::byte_step() == cpu::Step::kByte ? FixedPoint::kByte : FixedPoint::kNone;
}

namespace cpu {

namespace {

void require_floats(const char* op, std::initializer_list<const Tensor*> tensors) {
  for (const Tensor* t : tensors)
    require(t->dtype() == kF32 || t->dtype() == kBF16, op, "expected f32 or bf16, got {}",
            dtype_name(t->dtype()));
}

void require_right_operand(const char* op, const Tensor& b, const Tensor* absmax, int64_t k,
                           FixedPoint fixed_point, bool a_transposed) {
  require(fixed_point != FixedPoint::kShort || (k % 2 == 0 && !a_transposed), op,
          "fixed point needs an even k and a left side as it lies, got k {}", k);
  require(fixed_point != FixedPoint::kByte || (k % 4 == 0 && !a_transposed && b.dtype() == kI8), op,
          "bytes need k in fours, a left side as it lies and int8 codes, got k {} and {}", k,
          dtype_name(b.dtype()));
  if (b.dtype() != kI8) return require_floats(op, {&b});
  require(fixed_point != FixedPoint::kNone, op, "int8 codes are multiplied in fixed point only");
  require(absmax != nullptr && absmax->dtype() == kF32 && absmax->numel() == b.size(0), op,
          "int8 codes {} come with the f32 absmax of each of their rows, got {}", b.shape(),
          absmax == nullptr ? "none" : absmax->shape().str());
}

Matrix matrix_of(const Tensor& t, bool transposed, const Tensor* absmax = nullptr) {
  return {t.raw(), t.dtype(), t.shape()[1], transposed, absmax != nullptr ? absmax->data<float>() : nullptr};
}

}  // namespace

Step step_of(FixedPoint fixed_point) {
  if (fixed_point == FixedPoint::kByte) return byte_step();
  return fixed_point == FixedPoint::kShort ? Step::kFixedPoint : Step::kFloat;
}

void matmul(Stream& stream, const Tensor& a, const Tensor& b, Tensor& c, MatmulArgs args) {
  require_floats("matmul", {&a, &c});
  require_right_operand("matmul", b, args.absmax, args.transpose_b ? b.shape()[1] : b.shape()[0],
                        args.fixed_point, args.transpose_a);
  Product p;
  p.m = c.shape()[0];
  p.n = c.shape()[1];
  p.k = args.transpose_b ? b.shape()[1] : b.shape()[0];
  require(args.transpose_a ? a.shape()[0] == p.k : a.shape()[1] >= p.k, "matmul",
          "k is {} in B {} and does not fit A {}", p.k, b.shape(), a.shape());
  if (p.m == 0 || p.n == 0) return;
  if (p.k == 0) {
    if (!args.accumulate) std::memset(c.raw(), 0, static_cast<size_t>(c.bytes()));
    return;
  }
  p.a = matrix_of(a, args.transpose_a);
  p.b = matrix_of(b, args.transpose_b, args.absmax);
  p.c = c.raw();
  p.c_dtype = c.dtype();
  p.ldc = p.n;
  p.alpha = args.alpha;
  p.accumulate = args.accumulate;
  p.step = step_of(args.fixed_point);
  multiply_packed(stream, p);
}

void low_rank_matmul(Stream& stream, const Tensor& x, const Tensor& w, const Tensor& p, const Tensor& q,
                     Tensor& t, Tensor& c, LowRankArgs args) {
  require_floats("low_rank_matmul", {&x, &p, &q, &t, &c});
  require_right_operand("low_rank_matmul", w, args.absmax, x.shape()[1], args.fixed_point, false);
  LowRank low_rank{.r = t.shape()[1],
                   .p = matrix_of(p, args.transpose),
                   .q = matrix_of(q, args.transpose),
                   .t = t.raw(),
                   .t_dtype = t.dtype(),
                   .alpha = args.alpha,
                   .beta = args.beta};
  Product product{.m = c.shape()[0],
                  .n = c.shape()[1],
                  .k = x.shape()[1],
                  .a = matrix_of(x, false),
                  .b = matrix_of(w, args.transpose, args.absmax),
                  .c = c.raw(),
                  .c_dtype = c.dtype(),
                  .ldc = c.shape()[1],
                  .accumulate = args.accumulate,
                  .low_rank = &low_rank,
                  .step = step_of(args.fixed_point)};
  if (product.m > kFewRows && product.n > 0 && product.k > 0 && low_rank.r > 0)
    return multiply_packed(stream, product);
  const FixedPoint of_pair = beside(args.fixed_point);
  matmul(stream, x, p, t, {.transpose_b = args.transpose, .fixed_point = of_pair, .alpha = args.alpha});
  matmul(stream, x, w, c,
         {.transpose_b = args.transpose,
          .accumulate = args.accumulate,
          .fixed_point = args.fixed_point,
          .absmax = args.absmax});
  matmul(stream, t, q, c,
         {.transpose_b = args.transpose,
          .accumulate = true,
          .fixed_point = low_rank.r % 2 == 0 ? of_pair : FixedPoint::kNone,
          .alpha = args.beta});
}

}  // namespace cpu
}  // namespace nibble::backend
