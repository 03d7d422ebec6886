#include <cmath>

#include "backend/cpu/adam.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/simd_targets.h"
#include "base/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/optimizer.cpp"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway wants it:
#include "backend/cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

// Nothing is fused: the same bytes on every instruction set.
void adamw_range(float* p, const float* g, float* m, float* v, const AdamArgs& args, int64_t begin,
                 int64_t end) {
  const hn::ScalableTag<float> d;
  const AdamStep s = adam_step(args);
  const auto constant = [&](float c) HWY_ATTR { return hn::Set(d, c); };
  for_vectors(d, begin, end, [&](const auto& at) HWY_ATTR {
    const auto gi = hn::Mul(at.load(d, g), constant(args.grad_scale));
    const auto mi =
        hn::Add(hn::Mul(constant(args.beta1), at.load(d, m)), hn::Mul(constant(1.0f - args.beta1), gi));
    const auto vi = hn::Add(hn::Mul(constant(args.beta2), at.load(d, v)),
                            hn::Mul(hn::Mul(constant(1.0f - args.beta2), gi), gi));
    const auto root = hn::Add(hn::Div(hn::Sqrt(vi), constant(s.root)), constant(args.eps));
    at.store(d, mi, m);
    at.store(d, vi, v);
    at.store(d,
             hn::Sub(hn::Mul(at.load(d, p), constant(s.decay)), hn::Div(hn::Mul(constant(s.rate), mi), root)),
             p);
  });
}

void sgd_range(float* p, const float* g, float* velocity, const SgdArgs& args, int64_t begin, int64_t end) {
  const hn::ScalableTag<float> d;
  const auto constant = [&](float c) HWY_ATTR { return hn::Set(d, c); };
  for_vectors(d, begin, end, [&](const auto& at) HWY_ATTR {
    const auto pi = at.load(d, p);
    auto gi =
        hn::Add(hn::Mul(at.load(d, g), constant(args.grad_scale)), hn::Mul(constant(args.weight_decay), pi));
    if (velocity != nullptr) {
      gi = hn::Add(hn::Mul(constant(args.momentum), at.load(d, velocity)), gi);
      at.store(d, gi, velocity);
    }
    at.store(d, hn::Sub(pi, hn::Mul(constant(args.learning_rate), gi)), p);
  });
}

void lion_range(float* p, const float* g, float* m, const LionArgs& args, int64_t begin, int64_t end) {
  const hn::ScalableTag<float> d;
  const auto constant = [&](float c) HWY_ATTR { return hn::Set(d, c); };
  const auto decay = constant(1.0f - args.learning_rate * args.weight_decay);
  for_vectors(d, begin, end, [&](const auto& at) HWY_ATTR {
    const auto gi = hn::Mul(at.load(d, g), constant(args.grad_scale)), mi = at.load(d, m);
    const auto u = hn::Add(hn::Mul(constant(args.beta1), mi), hn::Mul(constant(1.0f - args.beta1), gi));
    const auto one = hn::IfThenElse(hn::Ne(u, hn::Zero(d)), hn::CopySign(constant(1.0f), u), hn::Zero(d));
    const auto sign = hn::IfThenElse(hn::IsNaN(u), u, one);
    at.store(d, hn::Sub(hn::Mul(at.load(d, p), decay), hn::Mul(constant(args.learning_rate), sign)), p);
    at.store(d, hn::Add(hn::Mul(constant(args.beta2), mi), hn::Mul(constant(1.0f - args.beta2), gi)), m);
  });
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::backend::cpu {
HWY_EXPORT(adamw_range);
HWY_EXPORT(sgd_range);
HWY_EXPORT(lion_range);

namespace {
constexpr int64_t kGrain = 1 << 14;
}

void adamw(Stream&, Tensor& p, const Tensor& g, Tensor& m, Tensor& v, AdamArgs args) {
  float *pp = p.data<float>(), *pm = m.data<float>(), *pv = v.data<float>();
  const float* pg = g.data<float>();
  parallel_for(p.numel(), kGrain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(adamw_range)(pp, pg, pm, pv, args, begin, end);
  });
}

void sgd(Stream&, Tensor& p, const Tensor& g, Tensor& velocity, SgdArgs args) {
  float *pp = p.data<float>(), *pv = args.momentum != 0 ? velocity.data<float>() : nullptr;
  const float* pg = g.data<float>();
  parallel_for(p.numel(), kGrain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(sgd_range)(pp, pg, pv, args, begin, end);
  });
}

void lion(Stream&, Tensor& p, const Tensor& g, Tensor& m, LionArgs args) {
  float *pp = p.data<float>(), *pm = m.data<float>();
  const float* pg = g.data<float>();
  parallel_for(p.numel(), kGrain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(lion_range)(pp, pg, pm, args, begin, end);
  });
}

}  // namespace nibble::backend::cpu
#endif  // HWY_ONCE
