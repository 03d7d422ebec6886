// e^x of a vector of f32, within 2 ulp. Multiplications and additions are never fused, so every instruction
// set gives the same bits. Above 88.37 the result is infinity, below -87.33 zero; NaN stays NaN. Source: the
// polynomial of Cephes' expf (Moshier 1992) on [-ln 2 / 2, ln 2 / 2].
#if defined(NIBBLE_CPU_EXP_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_CPU_EXP_INL
#undef NIBBLE_CPU_EXP_INL
#else
#define NIBBLE_CPU_EXP_INL
#endif

#include <hwy/highway.h>

#include <limits>

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class D, class V = hn::Vec<D>>
HWY_INLINE V exp_f32(D d, V x) {
  const hn::Rebind<int32_t, D> di;
  const auto constant = [&](float c) HWY_ATTR { return hn::Set(d, c); };
  // Adding 1.5 * 2^23 rounds to an integer, which then stands in the low bits.
  const auto magic = constant(12582912.0f);
  const auto shifted = hn::Add(hn::Mul(x, constant(1.44269504f)), magic);
  const auto n = hn::Sub(shifted, magic);
  const auto r =
      hn::Sub(hn::Sub(x, hn::Mul(n, constant(0.693359375f))), hn::Mul(n, constant(-2.12194440e-4f)));
  auto p = constant(1.9875691500e-4f);
  for (const float c :
       {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
    p = hn::Add(hn::Mul(p, r), constant(c));
  p = hn::Add(hn::Add(hn::Mul(hn::Mul(p, r), r), r), constant(1.0f));
  const auto two_to_n =
      hn::BitCast(d, hn::Add(hn::ShiftLeft<23>(hn::BitCast(di, shifted)), hn::Set(di, 0x3F800000)));
  auto y = hn::Mul(p, two_to_n);
  y = hn::IfThenElse(hn::Gt(x, constant(88.37f)), constant(std::numeric_limits<float>::infinity()), y);
  return hn::IfThenZeroElse(hn::Lt(x, constant(-87.33f)), y);
}

// The same within 2 ulp where bits may differ between instruction sets: less than half the instructions with
// AVX-512, which fuses them and scales by a power of two in one.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V fused_exp_f32(D d, V x) {
#if HWY_TARGET == HWY_AVX3
  if constexpr (hn::MaxLanes(D()) == 16) {
    const auto constant = [&](float c) HWY_ATTR { return _mm512_set1_ps(c); };
    const __m512 z = _mm512_max_ps(constant(-150), x.raw);  // NaN, the second, stays
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(z, constant(1.44269504f)),
                                          _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 r =
        _mm512_fnmadd_ps(n, constant(-2.12194440e-4f), _mm512_fnmadd_ps(n, constant(0.693359375f), z));
    __m512 p = constant(1.9875691500e-4f);
    for (const float c :
         {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
      p = _mm512_fmadd_ps(p, r, constant(c));
    p = _mm512_add_ps(_mm512_fmadd_ps(_mm512_mul_ps(p, r), r, r), constant(1));
    return V{_mm512_scalef_ps(p, n)};
  }
#endif
  return exp_f32(d, x);
}

#if HWY_TARGET == HWY_AVX3
// 2^power within 2.6e-6 of itself (a minimax fit on [-1/2, 1/2]), for values that become bf16, which keeps 8
// bits of them. Beyond the range of f32 it is 0 or infinity; NaN stays, infinity gives NaN.
HWY_INLINE __m512 short_exp2(__m512 power) {
  const auto constant = [&](float c) HWY_ATTR { return _mm512_set1_ps(c); };
  const __m512 whole = _mm512_roundscale_ps(power, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 part = _mm512_sub_ps(power, whole);
  __m512 p = constant(9.5701013e-3f);
  for (const float c : {5.5917863e-2f, 2.4024744e-1f, 6.9312179e-1f, 0.99999928f})
    p = _mm512_fmadd_ps(p, part, constant(c));
  return _mm512_scalef_ps(p, whole);
}
#endif

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // per-target include guard
