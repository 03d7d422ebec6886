#include "ops/check.h"
#include "ops/ops.h"

namespace nibble::ops {

Variable rows(Context& cx, const Variable& x, const Tensor& which) {
  const auto [tokens, width] = require_matrix("rows", x.shape());
  require(which.dtype() == kI32, "rows", "row numbers should be i32, got {}", dtype_name(which.dtype()));
  if (which.raw() != nullptr && which.device() == Device::kCpu) {
    const auto* r = which.data<int32_t>();
    for (int64_t i = 0; i < which.numel(); ++i)
      require(r[i] >= 0 && r[i] < tokens && (i == 0 || r[i] > r[i - 1]), "rows",
              "row {} is {}: rows should ascend within 0 … {}", i, r[i], tokens - 1);
  }
  Tensor y = cx.empty({which.numel(), width}, x.dtype(), "rows.y");
  backend::gather_rows(cx.stream(), x.value(), which, y);
  cx.observe("rows", false, y, 0, 2.0 * static_cast<double>(y.bytes()));

  Variable result = cx.result(y, cx.differentiates({&x}));
  if (!result.requires_grad()) return result;
  cx.tape()->record("rows", result, [slot = x.slot(), which](Backward& b) {
    auto [dx, accumulate] = b.target(slot, "rows.dx");
    if (!accumulate) backend::fill(b.cx().stream(), dx, 0);
    backend::scatter_add_rows(b.cx().stream(), b.dy(), which, dx);
    b.cost(static_cast<double>(b.dy().numel()), 3.0 * static_cast<double>(b.dy().bytes()));
  });
  return result;
}

}  // namespace nibble::ops
