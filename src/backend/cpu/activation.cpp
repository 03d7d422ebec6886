#include <type_traits>

#include "backend/cpu/kernels.h"
#include "backend/cpu/simd_targets.h"
#include "base/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/activation.cpp"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway wants it:
#include "backend/cpu/activation-inl.h"
#include "backend/cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

void activation_range(const Tensor& x, Activation f, const Tensor& out, int64_t begin, int64_t end) {
  const hn::ScalableTag<float> d;
  const AnyFloats px(x, "activation"), po(out, "activation");
  with_activation(f, [&](auto a) HWY_ATTR {
    for_vectors(d, begin, end, [&](const auto& at) HWY_ATTR {
      auto slope = hn::Zero(d);
      at.store(d, activate<decltype(a)::value>(d, at.load(d, px), &slope), po);
    });
  });
}

void activation_backward_range(const Tensor& dy, const Tensor& x, Activation f, const Tensor& dx,
                               bool accumulate, int64_t begin, int64_t end) {
  const hn::ScalableTag<float> d;
  const char* const op = "activation_backward";
  const AnyFloats py(dy, op), px(x, op), pd(dx, op);
  with_activation(f, [&](auto a) HWY_ATTR {
    for_vectors(d, begin, end, [&](const auto& at) HWY_ATTR {
      auto slope = hn::Zero(d);
      activate<decltype(a)::value>(d, at.load(d, px), &slope);
      auto g = hn::Mul(at.load(d, py), slope);
      if (accumulate) g = hn::Add(at.load(d, pd), g);
      at.store(d, g, pd);
    });
  });
}

void softcap_range(const Tensor& x, float cap, const Tensor& out, int64_t begin, int64_t end) {
  const hn::ScalableTag<float> d;
  const auto to = hn::Set(d, cap), by = hn::Set(d, 1.0f / cap);
  const float* px = x.data<float>();
  float* po = out.data<float>();
  for_vectors(d, begin, end, [&](const auto& at) HWY_ATTR {
    at.store(d, hn::Mul(to, tanh_f32(d, hn::Mul(at.load(d, px), by))), po);
  });
}

void softcap_backward_range(const Tensor& dy, const Tensor& y, float cap, const Tensor& dx, int64_t begin,
                            int64_t end) {
  const hn::ScalableTag<float> d;
  const auto one = hn::Set(d, 1.0f), by = hn::Set(d, 1.0f / cap);
  const float *py = y.data<float>(), *pg = dy.data<float>();
  float* pd = dx.data<float>();
  for_vectors(d, begin, end, [&](const auto& at) HWY_ATTR {
    const auto t = hn::Mul(at.load(d, py), by);
    at.store(d, hn::Mul(at.load(d, pg), hn::Sub(one, hn::Mul(t, t))), pd);
  });
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::backend::cpu {
HWY_EXPORT(activation_range);
HWY_EXPORT(activation_backward_range);
HWY_EXPORT(softcap_range);
HWY_EXPORT(softcap_backward_range);

namespace {
constexpr int64_t kGrain = 1 << 14;
}

void activation(Stream&, const Tensor& x, Activation f, Tensor& out) {
  parallel_for(x.numel(), kGrain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(activation_range)(x, f, out, begin, end);
  });
}

void activation_backward(Stream&, const Tensor& dy, const Tensor& x, Activation f, Tensor& dx,
                         bool accumulate) {
  parallel_for(x.numel(), kGrain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(activation_backward_range)(dy, x, f, dx, accumulate, begin, end);
  });
}

void softcap(Stream&, const Tensor& x, float cap, Tensor& out) {
  parallel_for(x.numel(), kGrain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(softcap_range)(x, cap, out, begin, end);
  });
}

void softcap_backward(Stream&, const Tensor& dy, const Tensor& y, float cap, Tensor& dx) {
  parallel_for(y.numel(), kGrain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(softcap_backward_range)(dy, y, cap, dx, begin, end);
  });
}

}  // namespace nibble::backend::cpu
#endif  // HWY_ONCE
