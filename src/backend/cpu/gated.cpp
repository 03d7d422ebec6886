#include "backend/cpu/kernels.h"
#include "backend/cpu/simd_targets.h"
#include "base/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/gated.cpp"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway wants it:
#include "backend/cpu/activation-inl.h"
#include "backend/cpu/pair_operand-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

template <Activation kF, Step kStep, class In, class Out>
HWY_INLINE void gated_typed(In gate, In up, Out out, int64_t begin, int64_t end) {
  const hn::ScalableTag<float> d;
  for_vectors(d, begin, end, [&](const auto& at) HWY_ATTR {
    auto slope = hn::Zero(d);
    at.store(d, hn::Mul(activate<kF, kStep>(d, at.load(d, gate), &slope), at.load(d, up)), out);
  });
}

void gated_range(const Tensor& gate, const Tensor& up, Activation f, const Tensor& out,
                 [[maybe_unused]] Step step, int64_t begin, int64_t end) {
  const AnyFloats pg(gate, "gated"), pu(up, "gated"), po(out, "gated");
  with_activation(f, [&](auto a) HWY_ATTR {
    constexpr Activation kF = decltype(a)::value;
#if HWY_TARGET == HWY_AVX3
    if (step == Step::kPair)
      return gated_typed<kF, Step::kPair>(pg.bf16(), pu.bf16(), operand_of<Step::kPair>(po.bf16()), begin,
                                          end);
#endif
    gated_typed<kF, Step::kFloat>(pg, pu, po, begin, end);
  });
}

// All of a vector is read before any of it is written, so to_gate and to_up may lie over gate and up.
template <Activation kF, Step kStep, class In, class Store>
HWY_INLINE void gated_backward_typed(In dy, In gate, In up, In to_gate, bool add_gate, In to_up, bool add_up,
                                     int64_t begin, int64_t end, const Store& as_stored) {
  const hn::ScalableTag<float> d;
  const bool wants_gate(to_gate), wants_up(to_up);
  for_vectors(d, begin, end, [&](const auto& at) HWY_ATTR {
    const auto z = at.load(d, gate), u = at.load(d, up), y = at.load(d, dy);
    auto slope = hn::Zero(d);
    const auto value = activate<kF, kStep>(d, z, &slope);
    auto dg = hn::Mul(hn::Mul(y, u), slope), du = hn::Mul(y, value);
    if (wants_gate) {
      if (add_gate) dg = hn::Add(at.load(d, to_gate), dg);
      at.store(d, dg, as_stored(to_gate));
    }
    if (wants_up) {
      if (add_up) du = hn::Add(at.load(d, to_up), du);
      at.store(d, du, as_stored(to_up));
    }
  });
}

void gated_backward_range(const Tensor& dy, const Tensor& gate, const Tensor& up, Activation f,
                          const Tensor& dgate, bool add_gate, const Tensor& dup, bool add_up,
                          [[maybe_unused]] Step step, int64_t begin, int64_t end) {
  const char* const op = "gated_backward";
  const AnyFloats py(dy, op), pg(gate, op), pu(up, op), to_gate(dgate, op), to_up(dup, op);
  with_activation(f, [&](auto a) HWY_ATTR {
    constexpr Activation kF = decltype(a)::value;
#if HWY_TARGET == HWY_AVX3
    if (step == Step::kPair)
      return gated_backward_typed<kF, Step::kPair>(py.bf16(), pg.bf16(), pu.bf16(), to_gate.bf16(), add_gate,
                                                   to_up.bf16(), add_up, begin, end,
                                                   [](BFloat16* p) { return operand_of<Step::kPair>(p); });
#endif
    gated_backward_typed<kF, Step::kFloat>(py, pg, pu, to_gate, add_gate, to_up, add_up, begin, end,
                                           [](AnyFloats p) { return p; });
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

// kPair where every operand that there is is bf16 and the processor multiplies pairs of it.
Step step_of(std::initializer_list<const Tensor*> operands) {
  for (const Tensor* t : operands)
    if (*t && t->dtype() != kBF16) return Step::kFloat;
  return bf16_step() == Step::kPair ? Step::kPair : Step::kFloat;
}
}  // namespace

void gated(Stream&, const Tensor& gate, const Tensor& up, Activation f, Tensor& out) {
  const Step step = step_of({&gate, &up, &out});
  parallel_for(gate.numel(), kGrain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(gated_range)(gate, up, f, out, step, begin, end);
  });
}

void gated_backward(Stream&, const Tensor& dy, const Tensor& gate, const Tensor& up, Activation f,
                    Tensor& dgate, bool accumulate_gate, Tensor& dup, bool accumulate_up) {
  const Step step = step_of({&dy, &gate, &up, &dgate, &dup});
  parallel_for(gate.numel(), kGrain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(gated_backward_range)
    (dy, gate, up, f, dgate, accumulate_gate, dup, accumulate_up, step, begin, end);
  });
}

}  // namespace nibble::backend::cpu
#endif  // HWY_ONCE
