#include "backend/kernels/norm.h"

#include "ops/check.h"
#include "ops/ops.h"

namespace nibble::ops {

Variable rms_norm(Context& cx, const Variable& x, const Variable& w, float eps) {
  const auto [tokens, width] = require_matrix("rms_norm", x.shape());
  require(w.shape() == Shape{width}, "rms_norm",
          "w is {} but x is {} wide; does this norm belong to another model?", w.shape().str(), width);

  Tensor y = cx.empty_like(x.value(), "rms_norm.y");
  Tensor rstd = cx.empty({tokens}, kF32, "rms_norm.rstd");
  backend::rms_norm(cx.stream(), x.value(), w.value(), eps, y, rstd);
  const double elements = static_cast<double>(y.numel());
  cx.observe("rms_norm", false, y, 4 * elements, 2.0 * static_cast<double>(y.bytes()));

  const bool differentiated = cx.differentiates({&x, &w});
  Variable result = cx.result(y, differentiated);
  if (cx.tape() != nullptr && cx.checkpointing == autograd::Checkpointing::kSelective) {
    result.set_remake([&cx, x = x.save(), w, eps] {
      Tensor again = cx.empty_like(x.get(), "rms_norm.y");
      Tensor scratch = cx.empty({again.size(0)}, kF32, "rms_norm.rstd");
      backend::rms_norm(cx.stream(), x.get(), w.value(), eps, again, scratch);
      return again;
    });
  }
  if (!differentiated) return result;

  cx.tape()->record("rms_norm", result, [x = x.save(), w, slot = x.slot(), rstd, elements](Backward& b) {
    auto dx = b.target(slot, "rms_norm.dx"), dw = b.target(w.slot(), "rms_norm.dw");
    if (!slot) dx.grad = b.cx().empty_like(b.dy(), "rms_norm.dx");  // the kernel makes it along with dw
    backend::rms_norm_backward(b.cx().stream(), b.dy(), x.get(), w.value(), rstd, dx.grad, dx.accumulate,
                               dw.grad, dw.accumulate);
    b.cost(8 * elements, 3.0 * static_cast<double>(b.dy().bytes()));
  });
  return result;
}

}  // namespace nibble::ops
