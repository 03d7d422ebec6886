#include "backend/kernels/norm.h"
#include "ops/check.h"
#include "ops/ops.h"

namespace nibble::ops {

Variable layer_norm(Context& cx, const Variable& x, const Variable& w, const Variable& b, float eps) {
  const auto [tokens, width] = require_matrix("layer_norm", x.shape());
  require(w.shape() == Shape{width} && b.shape() == Shape{width}, "layer_norm",
          "w {} and b {} for an x that is {} wide; does this norm belong to another model?", w.shape(),
          b.shape(), width);

  Tensor y = cx.empty_like(x.value(), "layer_norm.y");
  Tensor mean = cx.empty({tokens}, kF32, "layer_norm.mean"),
         rstd = cx.empty({tokens}, kF32, "layer_norm.rstd");
  backend::layer_norm(cx.stream(), x.value(), w.value(), b.value(), eps, y, mean, rstd);
  const double elements = static_cast<double>(y.numel());
  cx.observe("layer_norm", false, y, 7 * elements, 2.0 * static_cast<double>(y.bytes()));

  const bool differentiated = cx.differentiates({&x, &w, &b});
  Variable result = cx.result(y, differentiated);
  if (cx.tape() != nullptr && cx.checkpointing == autograd::Checkpointing::kSelective) {
    result.set_remake([&cx, x = x.save(), w, b, eps] {
      Tensor again = cx.empty_like(x.get(), "layer_norm.y");
      Tensor means = cx.empty({again.size(0)}, kF32, "layer_norm.mean"),
             scratch = cx.empty({again.size(0)}, kF32, "layer_norm.rstd");
      backend::layer_norm(cx.stream(), x.get(), w.value(), b.value(), eps, again, means, scratch);
      return again;
    });
  }
  if (!differentiated) return result;

  cx.tape()->record(
      "layer_norm", result, [x = x.save(), w, b, slot = x.slot(), mean, rstd, elements](Backward& back) {
        auto dx = back.target(slot, "layer_norm.dx"), dw = back.target(w.slot(), "layer_norm.dw"),
             db = back.target(b.slot(), "layer_norm.db");
        // The kernel makes it along with dw and db.
        if (!slot) dx.grad = back.cx().empty_like(back.dy(), "layer_norm.dx");
        backend::layer_norm_backward(back.cx().stream(), back.dy(), x.get(), w.value(), mean, rstd, dx.grad,
                                     dx.accumulate, dw.grad, dw.accumulate, db.grad, db.accumulate);
        back.cost(12 * elements, 3.0 * static_cast<double>(back.dy().bytes()));
      });
  return result;
}

}  // namespace nibble::ops
