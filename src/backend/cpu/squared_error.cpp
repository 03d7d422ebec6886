#include "backend/cpu/kernels.h"

namespace nibble::backend::cpu {

void squared_error(Stream&, Tensor& scores, const Tensor& targets, float factor, bool gradient,
                   Tensor& losses) {
  float *s = scores.data<float>(), *loss = losses.data<float>();
  const auto* target = targets.data<float>();
  for (int64_t i = 0; i < targets.numel(); ++i) {
    const float difference = s[i] - target[i];
    loss[i] = difference * difference;
    if (gradient) s[i] = 2.0f * difference * factor;
  }
}

}  // namespace nibble::backend::cpu
