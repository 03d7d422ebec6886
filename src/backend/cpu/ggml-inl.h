// GGUF blocks decoded in registers: decode(block, sink) calls sink(i, v) with the f32 values i, i + 1, … of
// the block, equal to quant's scalar decoders bit for bit. Per-target include guard.
#if defined(NIBBLE_CPU_GGML_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_CPU_GGML_INL
#undef NIBBLE_CPU_GGML_INL
#else
#define NIBBLE_CPU_GGML_INL
#endif

#include <cstring>

#include "backend/cpu/convert-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

HWY_INLINE float half_at(const uint8_t* p) {
  uint16_t h;
  std::memcpy(&h, p, 2);
  if ((h & 0x7C00) == 0x7C00) return to_float(Float16{h});  // infinite or NaN
  const float magnitude = std::bit_cast<float>(uint32_t{h & 0x7FFFu} << 13) * 0x1.0p112f;
  return (h & 0x8000) != 0 ? -magnitude : magnitude;
}

HWY_INLINE hn::Vec<I32> bytes_as_i32(const uint8_t* p) { return hn::PromoteTo(I32(), hn::LoadU(U8(), p)); }
HWY_INLINE hn::Vec<I32> signed_bytes_as_i32(const uint8_t* p) {
  const hn::RebindToSigned<U8> di8;
  return hn::PromoteTo(I32(), hn::LoadU(di8, reinterpret_cast<const int8_t*>(p)));
}
HWY_INLINE VF32 as_f32(hn::Vec<I32> v) { return hn::ConvertTo(F32(), v); }
inline constexpr int kLanes = static_cast<int>(HWY_MIN(HWY_LANES(float), 8));

struct Q4_0 {
  static constexpr int kValues = 32, kBytes = 18;
  template <class Sink>
  static HWY_INLINE void decode(const uint8_t* block, Sink&& sink) {
    const auto d = hn::Set(F32(), half_at(block));
    const auto eight = hn::Set(I32(), 8), mask = hn::Set(I32(), 15);
    for (int i = 0; i < 16; i += kLanes) {
      const auto q = bytes_as_i32(block + 2 + i);
      sink(i, hn::Mul(d, as_f32(hn::Sub(hn::And(q, mask), eight))));
      sink(i + 16, hn::Mul(d, as_f32(hn::Sub(hn::ShiftRight<4>(q), eight))));
    }
  }
};

struct Q4_1 {
  static constexpr int kValues = 32, kBytes = 20;
  template <class Sink>
  static HWY_INLINE void decode(const uint8_t* block, Sink&& sink) {
    const auto d = hn::Set(F32(), half_at(block)), m = hn::Set(F32(), half_at(block + 2));
    const auto mask = hn::Set(I32(), 15);
    for (int i = 0; i < 16; i += kLanes) {
      const auto q = bytes_as_i32(block + 4 + i);
      sink(i, hn::Add(hn::Mul(d, as_f32(hn::And(q, mask))), m));
      sink(i + 16, hn::Add(hn::Mul(d, as_f32(hn::ShiftRight<4>(q))), m));
    }
  }
};

struct Q8_0 {
  static constexpr int kValues = 32, kBytes = 34;
  template <class Sink>
  static HWY_INLINE void decode(const uint8_t* block, Sink&& sink) {
    const auto d = hn::Set(F32(), half_at(block));
    for (int i = 0; i < 32; i += kLanes) sink(i, hn::Mul(d, as_f32(signed_bytes_as_i32(block + 2 + i))));
  }
};

// Scale and minimum of sub-block i of Q4_K and Q5_K; see quant/ggml_kquants.cpp.
struct ScaleMin {
  float scale, min;
};
HWY_INLINE ScaleMin scale_min(const uint8_t* s, int i) {
  if (i < 4) return {static_cast<float>(s[i] & 63), static_cast<float>(s[i + 4] & 63)};
  return {static_cast<float>((s[i + 4] & 15) | (s[i - 4] >> 6) << 4),
          static_cast<float>((s[i + 4] >> 4) | (s[i] >> 6) << 4)};
}

struct Q4_K {
  static constexpr int kValues = 256, kBytes = 144;
  template <class Sink>
  static HWY_INLINE void decode(const uint8_t* block, Sink&& sink) {
    const float d = half_at(block), dmin = half_at(block + 2);
    const auto mask = hn::Set(I32(), 15);
    for (int pair = 0; pair < 4; ++pair) {
      const ScaleMin a = scale_min(block + 4, 2 * pair), b = scale_min(block + 4, 2 * pair + 1);
      const auto scale_a = hn::Set(F32(), d * a.scale), min_a = hn::Set(F32(), dmin * a.min);
      const auto scale_b = hn::Set(F32(), d * b.scale), min_b = hn::Set(F32(), dmin * b.min);
      for (int i = 0; i < 32; i += kLanes) {
        const auto q = bytes_as_i32(block + 16 + 32 * pair + i);
        sink(64 * pair + i, hn::Sub(hn::Mul(scale_a, as_f32(hn::And(q, mask))), min_a));
        sink(64 * pair + 32 + i, hn::Sub(hn::Mul(scale_b, as_f32(hn::ShiftRight<4>(q))), min_b));
      }
    }
  }
};

struct Q6_K {
  static constexpr int kValues = 256, kBytes = 210;
  template <class Sink>
  static HWY_INLINE void decode(const uint8_t* block, Sink&& sink) {
    const float d = half_at(block + 208);
    const auto low = hn::Set(I32(), 15), two = hn::Set(I32(), 3), offset = hn::Set(I32(), 32);
    for (int half = 0; half < 2; ++half) {
      for (int within = 0; within < 32; within += kLanes) {
        const uint8_t* ql = block + 64 * half + within;
        const auto a = bytes_as_i32(ql), b = bytes_as_i32(ql + 32),
                   h = bytes_as_i32(block + 128 + 32 * half + within);
        const auto value = [&](int quarter, hn::Vec<I32> nibble, hn::Vec<I32> high) {
          int8_t s;
          std::memcpy(&s, block + 192 + 8 * half + 2 * quarter + within / 16, 1);
          const auto q = hn::Sub(hn::Or(nibble, hn::ShiftLeft<4>(hn::And(high, two))), offset);
          sink(128 * half + 32 * quarter + within,
               hn::Mul(hn::Set(F32(), d * static_cast<float>(s)), as_f32(q)));
        };
        value(0, hn::And(a, low), h);
        value(1, hn::And(b, low), hn::ShiftRight<2>(h));
        value(2, hn::ShiftRight<4>(a), hn::ShiftRight<4>(h));
        value(3, hn::ShiftRight<4>(b), hn::ShiftRight<6>(h));
      }
    }
  }
};

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // per-target include guard
