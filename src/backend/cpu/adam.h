// What one step of Adam needs besides its hyper-parameters, with the bias corrections computed in double.
#pragma once
#include <cmath>

#include "backend/kernels/optimizer.h"

namespace nibble::backend::cpu {

// p = p · decay - rate · m / (√v / root + eps)
struct AdamStep {
  float rate, root, decay;
};
inline AdamStep adam_step(const AdamArgs& a) {
  const double t = static_cast<double>(a.step);
  return {static_cast<float>(a.learning_rate / (1.0 - std::pow(static_cast<double>(a.beta1), t))),
          static_cast<float>(std::sqrt(1.0 - std::pow(static_cast<double>(a.beta2), t))),
          1.0f - a.learning_rate * a.weight_decay};
}

}  // namespace nibble::backend::cpu
