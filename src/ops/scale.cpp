#include "backend/kernels/elementwise.h"
#include "ops/ops.h"

namespace nibble::ops {

Variable scale(Context& cx, const Variable& x, float factor) {
  Tensor y = cx.empty_like(x.value(), "scale.y");
  backend::scale(cx.stream(), x.value(), factor, y, false);
  cx.observe("scale", false, y, static_cast<double>(y.numel()), 2.0 * static_cast<double>(y.bytes()));

  Variable result = cx.result(y, cx.differentiates({&x}));
  if (!result.requires_grad()) return result;
  cx.tape()->record("scale", result, [slot = x.slot(), factor](Backward& b) {
    auto [dx, accumulate] = b.target(slot, "scale.dx");
    backend::scale(b.cx().stream(), b.dy(), factor, dx, accumulate);
    b.cost(static_cast<double>(dx.numel()), 2.0 * static_cast<double>(dx.bytes()));
  });
  return result;
}

}  // namespace nibble::ops
