#include "backend/kernels/elementwise.h"
#include "backend/kernels/matmul.h"
#include "ops/check.h"
#include "ops/lora_branch.h"
#include "ops/ops.h"

// Everything here is an operation of its own with the textbook gradient, one product per line of the formula.
namespace nibble::ops {
namespace {

// y = alpha · x · wᵀ.
Variable product(Context& cx, const Variable& x, const Variable& w, float alpha) {
  Tensor y = cx.empty({x.size(0), w.size(0)}, kF32, "composed.product");
  backend::matmul(cx.stream(), x.value(), w.value(), y, {.transpose_b = true, .alpha = alpha});
  Variable result = cx.result(y, cx.differentiates({&x, &w}));
  if (!result.requires_grad()) return result;
  cx.tape()->record("composed.product", result, [x, w, alpha](Backward& b) {
    backend::Stream& stream = b.cx().stream();
    if (auto dx = b.target(x.slot(), "composed.dx"); dx.grad)
      backend::matmul(stream, b.dy(), w.value(), dx.grad, {.accumulate = dx.accumulate, .alpha = alpha});
    if (auto dw = b.target(w.slot(), "composed.dw"); dw.grad)
      backend::matmul(stream, b.dy(), x.value(), dw.grad,
                      {.transpose_a = true, .accumulate = dw.accumulate, .alpha = alpha});
  });
  return result;
}

// Rows [begin, end) of x.
Variable take_rows(Context& cx, const Variable& x, int64_t begin, int64_t end) {
  Variable y = cx.result(x.value().rows(begin, end), cx.differentiates({&x}));
  if (!y.requires_grad()) return y;
  cx.tape()->record("composed.take_rows", y, [slot = x.slot(), begin, end](Backward& b) {
    auto dx = b.target(slot, "composed.dx");
    if (!dx.accumulate) backend::fill(b.cx().stream(), dx.grad, 0);
    Tensor part = dx.grad.rows(begin, end);
    backend::accumulate(b.cx().stream(), b.dy(), part, true);
  });
  return y;
}

// x with `part` added to its rows from `begin` on.
Variable add_rows(Context& cx, const Variable& x, const Variable& part, int64_t begin) {
  const int64_t end = begin + part.size(0);
  Tensor y = cx.empty_like(x.value(), "composed.sum"), rows = y.rows(begin, end);
  backend::accumulate(cx.stream(), x.value(), y, false);
  backend::accumulate(cx.stream(), part.value(), rows, true);
  Variable result = cx.result(y, cx.differentiates({&x, &part}));
  if (!result.requires_grad()) return result;
  cx.tape()->record("composed.add_rows", result,
                    [slot_x = x.slot(), slot_part = part.slot(), begin, end](Backward& b) {
                      if (auto d = b.target(slot_part, "composed.dpart"); d.grad)
                        backend::accumulate(b.cx().stream(), b.dy().rows(begin, end), d.grad, d.accumulate);
                      if (slot_x) b.pass(slot_x, true, "composed.dx");
                    });
  return result;
}

Variable add_bias(Context& cx, const Variable& x, const Variable& bias) {
  Tensor y = cx.empty_like(x.value(), "composed.bias");
  backend::add_bias(cx.stream(), x.value(), bias.value(), y);
  Variable result = cx.result(y, cx.differentiates({&x, &bias}));
  if (!result.requires_grad()) return result;
  cx.tape()->record("composed.add_bias", result, [slot_x = x.slot(), slot_b = bias.slot()](Backward& b) {
    if (auto d = b.target(slot_b, "composed.db"); d.grad)
      backend::sum_rows(b.cx().stream(), b.dy(), d.grad, d.accumulate);
    if (slot_x) b.pass(slot_x, true, "composed.dx");
  });
  return result;
}

}  // namespace

Variable linear_composed(Context& cx, const Variable& x, const LinearArgs& args) {
  require(cx.compute() == kF32 && x.dtype() == kF32, "linear_composed", "is made of f32 products; x is {}",
          dtype_name(x.dtype()));
  Variable w = args.trainable;
  if (!w.defined()) {
    Tensor dense = cx.empty(args.weight->shape, kF32, "composed.w");
    if (dense.raw() != nullptr) quant::decode_rows(*args.weight, 0, args.weight->rows(), dense.data<float>());
    w = Variable(dense);
  }
  Variable y = product(cx, x, w, 1);
  if (args.bias.defined()) y = add_bias(cx, y, args.bias);
  for (const LoraBranch& branch : args.lora) {
    check_branch(branch, x.size(1), y.size(1), x.size(0));
    const Variable part = take_rows(cx, x, branch.begin, branch.end);
    const Variable u =
        dropout(cx, part, branch.dropout, branch.dropout_stream + static_cast<uint64_t>(branch.begin));
    y = add_rows(cx, y, product(cx, product(cx, u, branch.a, 1), branch.b, branch.scale), branch.begin);
  }
  return y;
}

}  // namespace nibble::ops
