#include "backend/kernels/elementwise.h"
#include "ops/check.h"
#include "ops/ops.h"

namespace nibble::ops {

Variable add(Context& cx, const Variable& a, const Variable& b) {
  require_same_shape("add", a, b);
  const bool differentiated = cx.differentiates({&a, &b});
  const auto sum = [&cx, a, b] {
    Tensor y = cx.empty_like(a.value(), "add.y");
    const Tensor& vb = b.value();
    backend::add(cx.stream(), a.value(), vb, y);
    cx.observe("add", false, y, static_cast<double>(y.numel()), 3.0 * static_cast<double>(y.bytes()));
    return y;
  };
  if (!differentiated) return cx.result(sum(), false);

  Variable y = cx.lazy ? Variable::lazy(a.shape(), a.dtype(), sum, cx.new_slot(a.shape(), a.dtype()))
                       : cx.result(sum(), true);
  const auto slot_a = a.slot(), slot_b = b.slot();
  cx.tape()->record("add", y, [slot_a, slot_b](Backward& g) {
    g.cost(0, 2.0 * static_cast<double>(g.dy().bytes()));
    if (slot_a) g.pass(slot_a, !slot_b, "add.da");
    if (slot_b) g.pass(slot_b, true, "add.db");
  });
  return y;
}

}  // namespace nibble::ops
