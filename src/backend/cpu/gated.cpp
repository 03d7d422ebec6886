#include <type_traits>

#include "backend/cpu/dispatch.h"
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
  with_float(gate.dtype(), "gated", [&](auto tg) HWY_ATTR {
    with_float(up.dtype(), "gated", [&](auto tu) HWY_ATTR {
      with_float(out.dtype(), "gated", [&](auto to) HWY_ATTR {
        with_activation(f, [&](auto a) HWY_ATTR {
          const auto* pg = gate.data<typename decltype(tg)::type>();
          const auto* pu = up.data<typename decltype(tu)::type>();
          auto* po = out.data<typename decltype(to)::type>();
          for_vectors(d, begin, end, [&](const auto& at) HWY_ATTR {
            auto slope = hn::Zero(d);
            at.store(d, hn::Mul(activate<decltype(a)::value>(d, at.load(d, pg), &slope), at.load(d, pu)), po);
          });
        });
      });
    });
  });
}

// All of a vector is read before any of it is written, so dgate and dup may lie over gate and up.
template <Activation kF, class Y, class G, class DG, class DU>
void backward_typed(const Y* dy, const G* gate, const G* up, DG* dgate, bool add_gate, DU* dup, bool add_up,
                    int64_t begin, int64_t end) {
  const hn::ScalableTag<float> d;
  for_vectors(d, begin, end, [&](const auto& at) HWY_ATTR {
    const auto z = at.load(d, gate), u = at.load(d, up), y = at.load(d, dy);
    auto slope = hn::Zero(d);
    const auto value = activate<kF>(d, z, &slope);
    auto dg = hn::Mul(hn::Mul(y, u), slope), du = hn::Mul(y, value);
    if (dgate != nullptr) {
      if (add_gate) dg = hn::Add(at.load(d, dgate), dg);
      at.store(d, dg, dgate);
    }
    if (dup != nullptr) {
      if (add_up) du = hn::Add(at.load(d, dup), du);
      at.store(d, du, dup);
    }
  });
}

void gated_backward_range(const Tensor& dy, const Tensor& gate, const Tensor& up, Activation f,
                          const Tensor& dgate, bool add_gate, const Tensor& dup, bool add_up, int64_t begin,
                          int64_t end) {
  with_float(dy.dtype(), "gated_backward", [&](auto ty) HWY_ATTR {
    with_float(gate.dtype(), "gated_backward", [&](auto tg) HWY_ATTR {
      with_float(dgate ? dgate.dtype() : kF32, "gated_backward", [&](auto tdg) HWY_ATTR {
        with_float(dup ? dup.dtype() : kF32, "gated_backward", [&](auto tdu) HWY_ATTR {
          with_activation(f, [&](auto a) HWY_ATTR {
            using G = typename decltype(tg)::type;
            using DG = typename decltype(tdg)::type;
            using DU = typename decltype(tdu)::type;
            backward_typed<decltype(a)::value>(dy.data<typename decltype(ty)::type>(), gate.data<G>(),
                                               up.data<G>(), dgate ? dgate.data<DG>() : nullptr, add_gate,
                                               dup ? dup.data<DU>() : nullptr, add_up, begin, end);
          });
        });
      });
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
  require(gate.dtype() == up.dtype(), "gated_backward", "expected gate and up of one type, got {} and {}",
          dtype_name(gate.dtype()), dtype_name(up.dtype()));
  parallel_for(gate.numel(), kGrain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(gated_backward_range)
    (dy, gate, up, f, dgate, accumulate_gate, dup, accumulate_up, begin, end);
  });
}

}  // namespace nibble::backend::cpu
#endif  // HWY_ONCE
