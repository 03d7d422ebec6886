#include "ops/check.h"
#include "ops/ops.h"

namespace nibble::ops {

Variable activation(Context& cx, const Variable& x, Activation f) {
  const bool differentiated = cx.differentiates({&x});
  const auto make = [&cx, f](const Tensor& in) {
    Tensor y = cx.empty_like(in, "activation.y");
    backend::activation(cx.stream(), in, f, y);
    cx.observe("activation", false, y, 8.0 * static_cast<double>(y.numel()),
               2.0 * static_cast<double>(y.bytes()));
    return y;
  };
  if (cx.tape() == nullptr) return cx.result(make(x.value()), false);

  const auto again = [make, in = x.save()] { return make(in.get()); };
  Variable y = cx.lazy ? Variable::lazy(x.shape(), x.dtype(), again,
                                        differentiated ? cx.new_slot(x.shape(), x.dtype()) : nullptr)
                       : cx.result(make(x.value()), differentiated);
  if (cx.checkpointing == autograd::Checkpointing::kSelective) y.set_remake(again);
  if (!differentiated) return y;

  cx.tape()->record("activation", y, [in = x.save(), slot = x.slot(), f](Backward& b) {
    auto [dx, accumulate] = b.target(slot, "activation.dx");
    backend::activation_backward(b.cx().stream(), b.dy(), in.get(), f, dx, accumulate);
    b.cost(12.0 * static_cast<double>(dx.numel()), 3.0 * static_cast<double>(dx.bytes()));
  });
  return y;
}

}  // namespace nibble::ops
