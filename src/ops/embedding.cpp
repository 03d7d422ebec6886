#include "backend/kernels/embedding.h"

#include "backend/kernels/elementwise.h"
#include "ops/ops.h"

namespace nibble::ops {

Variable embedding(Context& cx, const Tensor& ids, const quant::Weight& w, const Variable& trainable) {
  require(w.shape.rank() == 2, "embedding", "expected a table [vocabulary, width], got {}", w.shape);
  if (ids.raw() != nullptr && ids.device() == Device::kCpu) {
    const auto* id = ids.data<int32_t>();
    for (int64_t t = 0; t < ids.numel(); ++t)
      require(id[t] >= 0 && id[t] < w.rows(), "embedding",
              "token {} has id {}, the model knows {}; does the tokenizer belong to this model?", t, id[t],
              w.rows());
  }
  Tensor y = cx.empty({ids.numel(), w.cols()}, cx.compute(), "embedding.y");
  backend::embedding(cx.stream(), ids, w, y);
  cx.observe("embedding", false, y, 0, 2.0 * static_cast<double>(y.bytes()));

  Variable result = cx.result(y, cx.differentiates({&trainable}));
  if (!result.requires_grad()) return result;
  cx.tape()->record("embedding", result, [ids, slot = trainable.slot()](Backward& b) {
    auto [dw, accumulate] = b.target(slot, "embedding.dw");
    if (!accumulate) backend::fill(b.cx().stream(), dw, 0);
    backend::embedding_backward(b.cx().stream(), b.dy(), ids, dw);
    b.cost(static_cast<double>(b.dy().numel()), 2.0 * static_cast<double>(b.dy().bytes()));
  });
  return result;
}

}  // namespace nibble::ops
