#include "backend/kernels/rope.h"

#include <algorithm>

#include "ops/check.h"
#include "ops/ops.h"

namespace nibble::ops {

Variable rope(Context& cx, const Variable& x, const Tensor& cos_sin, const Tensor& positions,
              int64_t head_width) {
  const auto [tokens, width] = require_matrix("rope", x.shape());
  require(head_width > 0 && width % head_width == 0, "rope", "x is {} wide, which heads of {} do not divide",
          width, head_width);
  require(positions.shape() == Shape{tokens}, "rope", "positions {} for {} tokens", positions.shape(),
          tokens);
  require(cos_sin.shape().rank() == 2 && cos_sin.size(1) % 2 == 0 && cos_sin.size(1) <= head_width, "rope",
          "a table {} does not fit heads of {}", cos_sin.shape(), head_width);
  if (positions.raw() != nullptr && positions.device() == Device::kCpu) {
    const auto* p = positions.data<int32_t>();
    for (int64_t t = 0; t < tokens; ++t)
      require(p[t] >= 0 && p[t] < cos_sin.size(0), "rope", "token {} has position {}, the table ends at {}",
              t, p[t], cos_sin.size(0));
  }

  Tensor y = cx.empty_like(x.value(), "rope.y");
  backend::rope(cx.stream(), x.value(), cos_sin, positions, head_width, +1, y);
  cx.observe("rope", false, y, 3.0 * static_cast<double>(y.numel()), 2.0 * static_cast<double>(y.bytes()));

  Variable result = cx.result(y, cx.differentiates({&x}));
  if (!result.requires_grad()) return result;
  cx.tape()->record("rope", result, [slot = x.slot(), cos_sin, positions, head_width](Backward& b) {
    Tensor dx = b.dy();  // turned back where it lies: nobody reads dy after this
    backend::rope(b.cx().stream(), b.dy(), cos_sin, positions, head_width, -1, dx);
    b.pass(slot, true, "rope.dx");
    b.cost(3.0 * static_cast<double>(dx.numel()), 2.0 * static_cast<double>(dx.bytes()));
  });
  return result;
}

}  // namespace nibble::ops
