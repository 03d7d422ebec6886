// Float conversions for the leaf files that Highway compiles once per instruction set: f32, bf16 and f16,
// round to nearest even on every target (Debian's Highway truncates when it demotes to bf16).
// Per-target include guard.
#if defined(NIBBLE_CPU_CONVERT_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_CPU_CONVERT_INL
#undef NIBBLE_CPU_CONVERT_INL
#else
#define NIBBLE_CPU_CONVERT_INL
#endif

#include <hwy/highway.h>

#include "tensor/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// f32 lanes: at most eight, so that every width divides 32.
using F32 = hn::CappedTag<float, 8>;
using U32 = hn::Rebind<uint32_t, F32>;
using I32 = hn::Rebind<int32_t, F32>;
using U16 = hn::Rebind<uint16_t, F32>;
using U8 = hn::Rebind<uint8_t, F32>;
using VF32 = hn::Vec<F32>;

// bf16 bits of f32 bits in the low halves of u32 lanes, as to_bf16() makes them.
template <class D32, class V>
HWY_INLINE V bf16_bits(D32 d, V bits) {
  const auto upper = hn::ShiftRight<16>(bits);
  const auto rounded =
      hn::ShiftRight<16>(hn::Add(bits, hn::Add(hn::And(upper, hn::Set(d, 1u)), hn::Set(d, 0x7FFFu))));
  const hn::RebindToSigned<D32> di;
  const auto magnitude = hn::BitCast(di, hn::And(bits, hn::Set(d, 0x7FFFFFFFu)));
  const auto nan = hn::VecFromMask(d, hn::RebindMask(d, hn::Gt(magnitude, hn::Set(di, 0x7F800000))));
  return hn::IfVecThenElse(nan, hn::Or(upper, hn::Set(d, 0x40u)), rounded);
}

// f16 bits likewise, as to_f16() makes them.
template <class D32, class V>
HWY_INLINE V f16_bits(D32 d, V bits) {
  const hn::RebindToSigned<D32> di;
  const hn::RebindToFloat<D32> df;
  const auto sign = hn::And(hn::ShiftRight<16>(bits), hn::Set(d, 0x8000u));
  const auto a = hn::And(bits, hn::Set(d, 0x7FFFFFFFu));
  const auto ai = hn::BitCast(di, a);
  const auto odd = hn::And(hn::ShiftRight<13>(a), hn::Set(d, 1u));
  auto h = hn::ShiftRight<13>(hn::Add(hn::Sub(a, hn::Set(d, 0x38000000u)), hn::Add(odd, hn::Set(d, 0xFFFu))));
  const auto subnormal =
      hn::Sub(hn::BitCast(d, hn::Add(hn::BitCast(df, a), hn::Set(df, 0.5f))), hn::Set(d, 0x3F000000u));
  const auto is = [&](auto mask) HWY_ATTR { return hn::VecFromMask(d, hn::RebindMask(d, mask)); };
  h = hn::IfVecThenElse(is(hn::Lt(ai, hn::Set(di, 0x38800000))), subnormal, h);
  h = hn::IfVecThenElse(is(hn::Gt(ai, hn::Set(di, 0x477FEFFF))), hn::Set(d, 0x7C00u), h);
  h = hn::IfVecThenElse(is(hn::Gt(ai, hn::Set(di, 0x7F800000))), hn::Set(d, 0x7E00u), h);
  return hn::Or(sign, h);
}

template <class D32, class V>
HWY_INLINE hn::Vec<hn::RebindToFloat<D32>> f32_of_f16(D32 d, V h) {
  const hn::RebindToSigned<D32> di;
  const hn::RebindToFloat<D32> df;
  const auto sign = hn::ShiftLeft<16>(hn::And(h, hn::Set(d, 0x8000u)));
  const auto rest = hn::And(h, hn::Set(d, 0x7FFFu));
  const auto wide = hn::ShiftLeft<13>(rest);
  const auto tiny =
      hn::BitCast(d, hn::Mul(hn::ConvertTo(df, hn::BitCast(di, rest)), hn::Set(df, 0x1.0p-24f)));
  const auto is = [&](auto mask) HWY_ATTR { return hn::VecFromMask(d, hn::RebindMask(d, mask)); };
  const auto ri = hn::BitCast(di, rest);
  auto r = hn::Add(wide, hn::Set(d, 112u << 23));
  r = hn::IfVecThenElse(is(hn::Lt(ri, hn::Set(di, 0x400))), tiny, r);
  r = hn::IfVecThenElse(is(hn::Gt(ri, hn::Set(di, 0x7BFF))), hn::Or(wide, hn::Set(d, 0x7F800000u)), r);
  return hn::BitCast(df, hn::Or(sign, r));
}

// Loads and stores of one vector of f32, whatever the element type in memory; any alignment.
HWY_INLINE VF32 load_f32(F32 d, const float* p) { return hn::LoadU(d, p); }
HWY_INLINE VF32 load_f32(F32 d, const BFloat16* p) {
  return hn::BitCast(
      d, hn::ShiftLeft<16>(hn::PromoteTo(U32(), hn::LoadU(U16(), reinterpret_cast<const uint16_t*>(p)))));
}
HWY_INLINE VF32 load_f32(F32, const Float16* p) {
  return f32_of_f16(U32(), hn::PromoteTo(U32(), hn::LoadU(U16(), reinterpret_cast<const uint16_t*>(p))));
}
HWY_INLINE void store_f32(F32 d, VF32 v, float* p) { hn::StoreU(v, d, p); }
HWY_INLINE void store_bits16(hn::Vec<U32> bits, uint16_t* p) {
  hn::StoreU(hn::DemoteTo(U16(), hn::BitCast(I32(), bits)), U16(), p);
}
HWY_INLINE void store_f32(F32, VF32 v, BFloat16* p) {
  store_bits16(bf16_bits(U32(), hn::BitCast(U32(), v)), reinterpret_cast<uint16_t*>(p));
}
HWY_INLINE void store_f32(F32, VF32 v, Float16* p) {
  store_bits16(f16_bits(U32(), hn::BitCast(U32(), v)), reinterpret_cast<uint16_t*>(p));
}

HWY_INLINE float widen(float x) { return x; }
HWY_INLINE float widen(BFloat16 x) { return to_float(x); }
HWY_INLINE float widen(Float16 x) { return to_float(x); }
HWY_INLINE void narrow(float x, float* p) { *p = x; }
HWY_INLINE void narrow(float x, BFloat16* p) { *p = to_bf16(x); }
HWY_INLINE void narrow(float x, Float16* p) { *p = to_f16(x); }

// n values from one element type to another; equal to the scalar conversions bit for bit.
template <class From, class To>
void convert(const From* from, int64_t n, To* to) {
  const F32 d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) store_f32(d, load_f32(d, from + i), to + i);
  for (; i < n; ++i) narrow(widen(from[i]), to + i);
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // per-target include guard
