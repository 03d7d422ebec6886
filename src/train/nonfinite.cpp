#include "train/nonfinite.h"

#include <cmath>

namespace nibble::train {

int64_t first_nonfinite(const Tensor& t) {
  const int64_t n = t.numel();
  if (t.raw() == nullptr) return -1;
  if (t.dtype() == kF32) {
    const float* values = t.data<float>();
    for (int64_t i = 0; i < n; ++i)
      if (!std::isfinite(values[i])) return i;
  } else if (t.dtype() == kBF16) {
    const BFloat16* values = t.data<BFloat16>();
    for (int64_t i = 0; i < n; ++i)
      if (!std::isfinite(to_float(values[i]))) return i;
  }
  return -1;
}

void NonfiniteSearch::on_op(const char* name, bool backward, const Tensor& result, double flops,
                            double bytes) {
  if (found()) return;
  int64_t layer = cx_.layer;
  if (!backward) {
    forwards_.emplace_back(name, layer);
  } else {
    // Backward walks the forwards from the last to the first. Further gradients of one operation come without
    // cost; a recomputed block has no forward of its own name.
    size_t at = forwards_.size();
    while (at > 0 && forwards_[at - 1].first != name) --at;
    if (last_backward_ == name && flops == 0 && bytes == 0) {
      layer = last_layer_;
    } else if (at > 0) {
      layer = forwards_[at - 1].second;
      forwards_.resize(at - 1);
    } else {
      layer = -1;
    }
    last_backward_ = name;
    last_layer_ = layer;
  }
  const int64_t bad = first_nonfinite(result);
  if (bad < 0) return;
  const float value =
      result.dtype() == kF32 ? result.data<float>()[bad] : to_float(result.data<BFloat16>()[bad]);
  where_ =
      fmt::format("{}{}{} (element {} of its result {} is {})", backward ? "the backward of " : "", name,
                  layer >= 0 ? fmt::format(" in layer {}", layer) : "", bad, result.shape().str(), value);
}

}  // namespace nibble::train
