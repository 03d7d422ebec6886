#include "backend/kernels/elementwise.h"
#include "ops/dropout_stream.h"
#include "ops/ops.h"

namespace nibble::ops {

Variable dropout(Context& cx, const Variable& x, float p, uint64_t stream) {
  require(p >= 0 && p < 1, "dropout", "the probability should be at least 0 and below 1, got {}", p);
  if (!cx.training || p == 0) return x;
  const uint64_t seed = cx.seed, id = dropout_stream(stream, cx.step);
  Tensor y = cx.empty_like(x.value(), "dropout.y");
  backend::dropout(cx.stream(), x.value(), p, seed, id, y, false);
  cx.observe("dropout", false, y, static_cast<double>(y.numel()), 2.0 * static_cast<double>(y.bytes()));

  Variable result = cx.result(y, cx.differentiates({&x}));
  if (!result.requires_grad()) return result;
  cx.tape()->record("dropout", result, [slot = x.slot(), p, seed, id](Backward& b) {
    auto [dx, accumulate] = b.target(slot, "dropout.dx");
    backend::dropout(b.cx().stream(), b.dy(), p, seed, id, dx, accumulate);
    b.cost(static_cast<double>(dx.numel()), 2.0 * static_cast<double>(dx.bytes()));
  });
  return result;
}

}  // namespace nibble::ops
