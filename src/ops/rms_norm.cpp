#include "backend/kernels/norm.h"

#include "ops/check.h"
#include "ops/ops.h"

namespace nibble::ops {

Variable rms_norm(Context& cx, const Variable& x, const Variable& w, float eps, float offset, int64_t heads) {
  const auto [tokens, width] = require_matrix("rms_norm", x.shape());
  require(heads > 0 && width % heads == 0 && w.shape() == Shape{width / heads}, "rms_norm",
          "w is {} but x is {} wide{}; does this norm belong to another model?", w.shape(), width,
          heads == 1 ? "" : fmt::format(" in {} heads", heads));

  // What the kernel sees: one vector a row.
  const Shape rows{tokens * heads, width / heads};
  const auto apart = [rows](const Tensor& t) { return t.reshape(rows); };
  Tensor y = cx.empty_like(x.value(), "rms_norm.y"), out = apart(y);
  Tensor rstd = cx.empty({rows[0]}, kF32, "rms_norm.rstd");
  backend::rms_norm(cx.stream(), apart(x.value()), w.value(), eps, offset, out, rstd);
  const double elements = static_cast<double>(y.numel());
  cx.observe("rms_norm", false, y, 4 * elements, 2.0 * static_cast<double>(y.bytes()));

  const bool differentiated = cx.differentiates({&x, &w});
  Variable result = cx.result(y, differentiated);
  if (cx.tape() != nullptr && cx.checkpointing == autograd::Checkpointing::kSelective) {
    result.set_remake([&cx, x = x.save(), w, eps, offset, apart, rows] {
      Tensor again = cx.empty_like(x.get(), "rms_norm.y"), to = apart(again);
      Tensor scratch = cx.empty({rows[0]}, kF32, "rms_norm.rstd");
      backend::rms_norm(cx.stream(), apart(x.get()), w.value(), eps, offset, to, scratch);
      return again;
    });
  }
  if (!differentiated) return result;

  cx.tape()->record("rms_norm", result,
                    [x = x.save(), w, offset, slot = x.slot(), rstd, elements, apart](Backward& b) {
                      auto dx = b.target(slot, "rms_norm.dx"), dw = b.target(w.slot(), "rms_norm.dw");
                      // The kernel makes it along with dw.
                      if (!slot) dx.grad = b.cx().empty_like(b.dy(), "rms_norm.dx");
                      Tensor to = apart(dx.grad);
                      backend::rms_norm_backward(b.cx().stream(), apart(b.dy()), apart(x.get()), w.value(),
                                                 offset, rstd, to, dx.accumulate, dw.grad, dw.accumulate);
                      b.cost(8 * elements, 3.0 * static_cast<double>(b.dy().bytes()));
                    });
  return result;
}

}  // namespace nibble::ops
