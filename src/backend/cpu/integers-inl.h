// Stretches of rows as integers for exact products (products of int8 weights, generation): the largest
// magnitude becomes kIntegerLevels, or 127 in bytes. One that is not finite makes the scale, and so every
// product, NaN. Per-target include guard.
#if defined(NIBBLE_BACKEND_CPU_INTEGERS_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_BACKEND_CPU_INTEGERS_INL_H
#undef NIBBLE_BACKEND_CPU_INTEGERS_INL_H
#else
#define NIBBLE_BACKEND_CPU_INTEGERS_INL_H
#endif

#include <algorithm>
#include <cmath>

#include "backend/cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

constexpr float kIntegerLevels = 16383;  // 15 bits with the sign: 2 · 384 · 127 · 16383 < 2³¹

// to[i] ≈ from[i] · factors[i] / result; `factors` may be null.
template <class T, class Integer>
HWY_INLINE float to_integers(const T* from, const float* factors, int64_t n, Integer* to) {
  constexpr float kLevels = sizeof(Integer) == 1 ? 127 : kIntegerLevels;
  constexpr float kLeast = 0x1.0p-100f;  // less counts as zero: its reciprocal would overflow
  const hn::ScalableTag<float> d;
  const hn::Rebind<Integer, decltype(d)> narrow;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d)), whole = n / lanes * lanes;
  const auto value = [&](int64_t i) HWY_ATTR {
    const auto v = load_f32(d, from + i);
    return factors == nullptr ? v : hn::Mul(v, hn::LoadU(d, factors + i));
  };
  const auto one = [&](int64_t i) {
    return factors == nullptr ? widen(from[i]) : widen(from[i]) * factors[i];
  };
  auto most = hn::Zero(d), probe = hn::Zero(d);
  for (int64_t i = 0; i < whole; i += lanes) {
    const auto v = value(i);
    most = hn::Max(most, hn::Abs(v));
    probe = hn::MulAdd(v, hn::Zero(d), probe);
  }
  float largest = hn::GetLane(hn::MaxOfLanes(d, most)), not_finite = hn::GetLane(hn::SumOfLanes(d, probe));
  for (int64_t i = whole; i < n; ++i) {
    largest = std::max(largest, std::abs(one(i)));
    not_finite += one(i) * 0.0f;
  }
  const bool usable = largest >= kLeast && not_finite == 0;
  const float factor = usable ? kLevels / largest : 0.0f;
  const auto up = hn::Set(d, factor);
  for (int64_t i = 0; i < whole; i += lanes) {
    const auto scaled =
        usable ? hn::NearestInt(hn::Mul(value(i), up)) : hn::Zero(hn::RebindToSigned<decltype(d)>());
    hn::StoreU(hn::DemoteTo(narrow, scaled), narrow, to + i);
  }
  for (int64_t i = whole; i < n; ++i)
    to[i] = usable ? static_cast<Integer>(std::lrintf(one(i) * factor)) : Integer{0};
  return largest / kLevels + not_finite;
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
