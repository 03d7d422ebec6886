#include <cmath>

#include "backend/cpu/kernels.h"
#include "base/parallel.h"

namespace nibble::backend::cpu {
namespace {
constexpr int64_t kGrain = 1 << 14;
}

void adamw(Stream&, Tensor& p, const Tensor& g, Tensor& m, Tensor& v, AdamArgs args) {
  float *pp = p.data<float>(), *pm = m.data<float>(), *pv = v.data<float>();
  const float* pg = g.data<float>();
  const double t = static_cast<double>(args.step);
  const float step = static_cast<float>(args.learning_rate / (1.0 - std::pow(static_cast<double>(args.beta1), t)));
  const float root = static_cast<float>(std::sqrt(1.0 - std::pow(static_cast<double>(args.beta2), t)));
  const float decay = 1.0f - args.learning_rate * args.weight_decay;
  parallel_for(p.numel(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float gi = pg[i] * args.grad_scale;
      pm[i] = args.beta1 * pm[i] + (1.0f - args.beta1) * gi;
      pv[i] = args.beta2 * pv[i] + (1.0f - args.beta2) * gi * gi;
      pp[i] = pp[i] * decay - step * pm[i] / (std::sqrt(pv[i]) / root + args.eps);
    }
  });
}

void sgd(Stream&, Tensor& p, const Tensor& g, Tensor& velocity, SgdArgs args) {
  float *pp = p.data<float>(), *pv = args.momentum != 0 ? velocity.data<float>() : nullptr;
  const float* pg = g.data<float>();
  parallel_for(p.numel(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float gi = pg[i] * args.grad_scale + args.weight_decay * pp[i];
      if (pv) gi = pv[i] = args.momentum * pv[i] + gi;
      pp[i] -= args.learning_rate * gi;
    }
  });
}

void lion(Stream&, Tensor& p, const Tensor& g, Tensor& m, LionArgs args) {
  float *pp = p.data<float>(), *pm = m.data<float>();
  const float* pg = g.data<float>();
  const float decay = 1.0f - args.learning_rate * args.weight_decay;
  parallel_for(p.numel(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float gi = pg[i] * args.grad_scale, u = args.beta1 * pm[i] + (1.0f - args.beta1) * gi;
      const float sign = u > 0 ? 1.0f : u < 0 ? -1.0f : u;  // a NaN stays one
      pp[i] = pp[i] * decay - args.learning_rate * sign;
      pm[i] = args.beta2 * pm[i] + (1.0f - args.beta2) * gi;
    }
  });
}

}  // namespace nibble::backend::cpu
