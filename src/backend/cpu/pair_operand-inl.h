// Bf16 as products by a step store and read it, for what stands beside products and gives them operands:
// rounded by the processor where that multiplies pairs (gemm_step.h), in our own words elsewhere.
#include <algorithm>
#include <type_traits>

#include "backend/cpu/gemm_step.h"
#include "backend/cpu/vector-inl.h"

#if defined(NIBBLE_BACKEND_CPU_PAIR_OPERAND_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_BACKEND_CPU_PAIR_OPERAND_INL_H
#undef NIBBLE_BACKEND_CPU_PAIR_OPERAND_INL_H
#else
#define NIBBLE_BACKEND_CPU_PAIR_OPERAND_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

// bf16 that products by kStep read or give. The processor's instructions for pairs round what is smaller than
// the least normal number to zero, its conversion too.
template <Step kStep>
struct PairOperand {
  BFloat16* values;
  PairOperand operator+(int64_t i) const { return {values + i}; }
};
template <class D, Step kStep>
HWY_INLINE void store_f32(D d, hn::Vec<D> v, PairOperand<kStep> p) {
#if HWY_TARGET == HWY_AVX3
  if constexpr (kStep == Step::kPair) {
    __m256i bits;
    asm("vcvtneps2bf16 %1, %0" : "=v"(bits) : "v"(v.raw));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p.values), bits);
    return;
  }
#endif
  store_f32(d, v, p.values);
}
template <class D, Step kStep>
HWY_INLINE void store_part(D d, hn::Vec<D> v, PairOperand<kStep> p, size_t n) {
  BFloat16 padded[hn::MaxLanes(d)];
  store_f32(d, v, PairOperand<kStep>{padded});
  std::copy_n(padded, n, p.values);
}
// Bf16 as products by kStep store it.
template <Step kStep>
HWY_INLINE auto operand_of(BFloat16* values) {
  if constexpr (kStep == Step::kPair)
    return PairOperand<kStep>{values};
  else
    return values;
}
// Where products by kStep find what is stored over these floats.
template <Step kStep>
HWY_INLINE auto operand_over(float* floats) {
  if constexpr (kStep == Step::kFloat)
    return floats;
  else
    return PairOperand<kStep>{reinterpret_cast<BFloat16*>(floats)};
}

// f of the type and step that operands of `type` are multiplied with.
template <class F>
HWY_INLINE void with_step(DType type, Step step, const F& f) {
  if (type == kF32) return f(float(), std::integral_constant<Step, Step::kFloat>());
#if HWY_TARGET == HWY_AVX3
  if (step == Step::kPair) return f(BFloat16(), std::integral_constant<Step, Step::kPair>());
#endif
  if (step == Step::kFloat) return f(BFloat16(), std::integral_constant<Step, Step::kFloat>());
  f(BFloat16(), std::integral_constant<Step, Step::kEmulatedPair>());
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
