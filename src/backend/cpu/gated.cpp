#include "backend/cpu/kernels.h"
#include "backend/cpu/simd_targets.h"
#include "base/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/gated.cpp"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway wants it:
#include "backend/cpu/activation-inl.h"
#include "backend/cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

void gated_range(const Tensor& gate, const Tensor& up, Activation f, const Tensor& out, int64_t begin,
                 int64_t end) {
  const hn::ScalableTag<float> d;
  const AnyFloats pg(gate, "gated"), pu(up, "gated"), po(out, "gated");
  with_activation(f, [&](auto a) HWY_ATTR {
    for_vectors(d, begin, end, [&](const auto& at) HWY_ATTR {
      auto slope = hn::Zero(d);
      at.store(d, hn::Mul(activate<decltype(a)::value>(d, at.load(d, pg), &slope), at.load(d, pu)), po);
    });
  });
}

// All of a vector is read before any of it is written, so dgate and dup may lie over gate and up.
void gated_backward_range(const Tensor& dy, const Tensor& gate, const Tensor& up, Activation f,
                          const Tensor& dgate, bool add_gate, const Tensor& dup, bool add_up, int64_t begin,
                          int64_t end) {
  const hn::ScalableTag<float> d;
  const char* const op = "gated_backward";
  const AnyFloats py(dy, op), pg(gate, op), pu(up, op), to_gate(dgate, op), to_up(dup, op);
  with_activation(f, [&](auto a) HWY_ATTR {
    for_vectors(d, begin, end, [&](const auto& at) HWY_ATTR {
      const auto z = at.load(d, pg), u = at.load(d, pu), y = at.load(d, py);
      auto slope = hn::Zero(d);
      const auto value = activate<decltype(a)::value>(d, z, &slope);
      auto dg = hn::Mul(hn::Mul(y, u), slope), du = hn::Mul(y, value);
      if (to_gate) {
        if (add_gate) dg = hn::Add(at.load(d, to_gate), dg);
        at.store(d, dg, to_gate);
      }
      if (to_up) {
        if (add_up) du = hn::Add(at.load(d, to_up), du);
        at.store(d, du, to_up);
      }
    });
  });
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::backend::cpu {
HWY_EXPORT(gated_range);
HWY_EXPORT(gated_backward_range);

namespace {
constexpr int64_t kGrain = 1 << 14;
}

void gated(Stream&, const Tensor& gate, const Tensor& up, Activation f, Tensor& out) {
  parallel_for(gate.numel(), kGrain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(gated_range)(gate, up, f, out, begin, end);
  });
}

void gated_backward(Stream&, const Tensor& dy, const Tensor& gate, const Tensor& up, Activation f,
                    Tensor& dgate, bool accumulate_gate, Tensor& dup, bool accumulate_up) {
  parallel_for(gate.numel(), kGrain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(gated_backward_range)
    (dy, gate, up, f, dgate, accumulate_gate, dup, accumulate_up, begin, end);
  });
}

}  // namespace nibble::backend::cpu
#endif  // HWY_ONCE
