// Stretches of rows as integers for exact sums of products (fixed_point-inl.h, generation). A value that is
// not finite makes the scale, and so every product, NaN. Per-target include guard.
#if defined(NIBBLE_BACKEND_CPU_INTEGERS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_BACKEND_CPU_INTEGERS_INL_H
#undef NIBBLE_BACKEND_CPU_INTEGERS_INL_H
#else
#define NIBBLE_BACKEND_CPU_INTEGERS_INL_H
#endif

#include <algorithm>
#include <bit>
#include <cmath>

#include "backend/cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

constexpr float kLeastToScale = 0x1.0p-100f;  // less counts as zero: its reciprocal would overflow

// to[i] ≈ from[i] / result, the largest magnitude becoming `levels`.
template <class T, class Integer>
HWY_INLINE float to_integers(const T* from, int64_t n, float levels, Integer* to) {
  const hn::ScalableTag<float> d;
  const hn::Rebind<Integer, decltype(d)> narrow;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d)), whole = n / lanes * lanes;
  auto most = hn::Zero(d), probe = hn::Zero(d);
  for (int64_t i = 0; i < whole; i += lanes) {
    const auto v = load_f32(d, from + i);
    most = hn::Max(most, hn::Abs(v));
    probe = hn::MulAdd(v, hn::Zero(d), probe);
  }
  float largest = hn::GetLane(hn::MaxOfLanes(d, most)), not_finite = hn::GetLane(hn::SumOfLanes(d, probe));
  for (int64_t i = whole; i < n; ++i) {
    largest = std::max(largest, std::abs(widen(from[i])));
    not_finite += widen(from[i]) * 0.0f;
  }
  const bool usable = largest >= kLeastToScale && not_finite == 0;
  const float factor = usable ? levels / largest : 0.0f;
  const auto up = hn::Set(d, factor);
  for (int64_t i = 0; i < whole; i += lanes) {
    const auto scaled = usable ? hn::NearestInt(hn::Mul(load_f32(d, from + i), up))
                               : hn::Zero(hn::RebindToSigned<decltype(d)>());
    hn::StoreU(hn::DemoteTo(narrow, scaled), narrow, to + i);
  }
  for (int64_t i = whole; i < n; ++i)
    to[i] = usable ? static_cast<Integer>(std::lrintf(widen(from[i]) * factor)) : Integer{0};
  return largest / levels + not_finite;
}

// The same results for bf16 as 16-bit integers: magnitudes are compared as bits, and values widened and
// narrowed within 16 bytes, where shuffles are fast.
HWY_INLINE float to_integers(const BFloat16* from, int64_t n, float levels, int16_t* to) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> d32;
  const hn::Repartition<int16_t, decltype(d)> d16;
  const auto* bits = reinterpret_cast<const int16_t*>(from);
  const auto lanes = static_cast<int64_t>(hn::Lanes(d16)), whole = n / lanes * lanes;
  const auto magnitude = hn::Set(d16, int16_t{0x7FFF});
  auto most = hn::Zero(d16);
  for (int64_t i = 0; i < whole; i += lanes)
    most = hn::Max(most, hn::And(hn::LoadU(d16, bits + i), magnitude));
  const auto pairs = hn::BitCast(d32, most);
  int32_t top = hn::GetLane(
      hn::MaxOfLanes(d32, hn::Max(hn::ShiftRight<16>(pairs), hn::And(pairs, hn::Set(d32, 0xFFFF)))));
  for (int64_t i = whole; i < n; ++i) top = std::max<int32_t>(top, bits[i] & 0x7FFF);
  const auto largest = std::bit_cast<float>(top << 16);
  if (top >= 0x7F80 || largest < kLeastToScale) {
    std::fill_n(to, n, int16_t{0});
    return largest / levels + largest * 0.0f;
  }
  const float factor = levels / largest;
  const auto up = hn::Set(d, factor);
  const auto zero = hn::Zero(d16);
  for (int64_t i = 0; i < whole; i += lanes) {
    const auto v = hn::LoadU(d16, bits + i);
    const auto low = hn::BitCast(d, hn::InterleaveLower(d16, zero, v)),
               high = hn::BitCast(d, hn::InterleaveUpper(d16, zero, v));
    const auto a = hn::NearestInt(hn::Mul(low, up)), b = hn::NearestInt(hn::Mul(high, up));
    hn::StoreU(hn::ReorderDemote2To(d16, a, b), d16, to + i);
  }
  for (int64_t i = whole; i < n; ++i) to[i] = static_cast<int16_t>(std::lrintf(widen(from[i]) * factor));
  return largest / levels;
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
