#include "ops/check.h"
#include "ops/ops.h"

namespace nibble::ops {

Variable columns(Context& cx, const Variable& x, const Columns& c) {
  const auto [tokens, width] = require_matrix("columns", x.shape());
  require(c.groups > 0 && c.width > 0 && c.offset >= 0 && c.offset + c.width <= c.stride &&
              c.groups * c.stride <= width,
          "columns", "{} groups of {} columns, {} apart, from {} on do not lie in {}", c.groups, c.width,
          c.stride, c.offset, x.shape());
  Tensor y = cx.empty({tokens, c.groups * c.width}, x.dtype(), "columns.y");
  backend::take_columns(cx.stream(), x.value(), c, y);
  cx.observe("columns", false, y, 0, 2.0 * static_cast<double>(y.bytes()));

  Variable result = cx.result(y, cx.differentiates({&x}));
  if (!result.requires_grad()) return result;
  cx.tape()->record("columns", result, [slot = x.slot(), c](Backward& b) {
    auto [dx, accumulate] = b.target(slot, "columns.dx");
    if (!accumulate) backend::fill(b.cx().stream(), dx, 0);
    backend::add_columns(b.cx().stream(), b.dy(), c, dx);
    b.cost(static_cast<double>(b.dy().numel()), 3.0 * static_cast<double>(b.dy().bytes()));
  });
  return result;
}

}  // namespace nibble::ops
