#include "ops/check.h"
#include "ops/ops.h"

namespace nibble::ops {

Variable gated(Context& cx, const Variable& gate, const Variable& up, Activation f) {
  require_same_shape("gated", gate, up);
  const bool differentiated = cx.differentiates({&gate, &up});
  const auto make = [&cx, f](const Tensor& g, const Tensor& u) {
    Tensor y = cx.empty_like(g, "gated.y");
    backend::gated(cx.stream(), g, u, f, y);
    cx.observe("gated", false, y, 6.0 * static_cast<double>(y.numel()), 3.0 * static_cast<double>(y.bytes()));
    return y;
  };
  if (cx.tape() == nullptr) return cx.result(make(gate.value(), up.value()), false);

  const auto again = [make, g = gate.save(), u = up.save()] { return make(g.get(), u.get()); };
  Variable y = cx.lazy ? Variable::lazy(gate.shape(), gate.dtype(), again,
                                        differentiated ? cx.new_slot(gate.shape(), gate.dtype()) : nullptr)
                       : cx.result(make(gate.value(), up.value()), differentiated);
  if (cx.checkpointing == autograd::Checkpointing::kSelective) y.set_remake(again);
  if (!differentiated) return y;

  cx.tape()->record(
      "gated", y, [g = gate.save(), u = up.save(), slot_g = gate.slot(), slot_u = up.slot(), f](Backward& b) {
        auto dg = b.target(slot_g, "gated.dgate"), du = b.target(slot_u, "gated.dup");
        backend::gated_backward(b.cx().stream(), b.dy(), g.get(), u.get(), f, dg.grad, dg.accumulate, du.grad,
                                du.accumulate);
        b.cost(16.0 * static_cast<double>(b.dy().numel()), 5.0 * static_cast<double>(b.dy().bytes()));
      });
  return y;
}

}  // namespace nibble::ops
