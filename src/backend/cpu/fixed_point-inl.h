// Products of 16-bit integers: runs of 128 neighbours along k are scaled by their largest magnitude, so that
// the sum of a run's products is exact in 32 bits; sums of runs are f32. A multiply-add of pairs does the
// work of two of floats (pmaddwd and an addition, which more ports take than a float's).
//
// Precision: a value of A moves by at most 1/16382 of the largest of its run, one of B by 1/4094; storing it
// as bf16 moved it by up to 1/512 of itself. What that adds to a product is (rms) below a quarter of what
// storing both sides as bf16 did, below a half where single values of A are 30 times the others; a test holds
// it there. A run with a value that is not finite gives NaN.
//
// Two neighbours along k stand in the place of a float (k counts such steps, as in gemm-inl.h). A is packed
// by six rows: [six][run]{[step][6], 6 scales}; B by panels of gemm_panel_width() columns:
// [panel][run]{[step][width], width scales}. Per-target include guard.
#include <algorithm>
#include <bit>

#include <hwy/cache_control.h>

#include "backend/cpu/gemm-inl.h"
#include "backend/cpu/integers-inl.h"
#include "backend/cpu/local_buffer.h"
#include "backend/cpu/matmul.h"

#if defined(NIBBLE_BACKEND_CPU_FIXED_POINT_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_BACKEND_CPU_FIXED_POINT_INL_H
#undef NIBBLE_BACKEND_CPU_FIXED_POINT_INL_H
#else
#define NIBBLE_BACKEND_CPU_FIXED_POINT_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

constexpr float kFixedA = 8191, kFixedB = 2047;  // 128 · 8191 · 2047 < 2³¹
constexpr int64_t kRunSteps = kFixedRun / 2;
constexpr int64_t kFixedRows = 6;  // of A side by side

// Two neighbours of an int8 matrix, packed as a pair of 16-bit integers.
struct Int8Pair {
  int8_t first, second;
};
HWY_INLINE hn::Vec<hn::CappedTag<float, 4>> load_f32(hn::CappedTag<float, 4> d, const Int8Pair* p) {
  const hn::Repartition<int16_t, decltype(d)> d16;
  const hn::Rebind<int8_t, decltype(d16)> d8;
  return hn::BitCast(d, hn::PromoteTo(d16, hn::LoadU(d8, reinterpret_cast<const int8_t*>(p))));
}
HWY_INLINE float widen(Int8Pair p) {
  return std::bit_cast<float>(static_cast<uint32_t>(static_cast<uint16_t>(p.first)) |
                              static_cast<uint32_t>(static_cast<uint16_t>(p.second)) << 16);
}

// One panel of Bᵀ [n, 2k] from rows of floats.
template <class T>
HWY_INLINE void pack_fixed_transposed(const T* from, int64_t ld, int64_t k, int64_t columns, float* to) {
  const int64_t width = gemm_panel_width();
  HWY_ALIGN int16_t integers[kFixedRun * hn::MaxLanes(GemmTag()) * 2];
  columns = std::min(columns, width);
  for (int64_t at = 0; at < k; at += kRunSteps) {
    const int64_t steps = std::min(kRunSteps, k - at);
    float* scales = to + steps * width;
    for (int64_t j = 0; j < width; ++j)
      scales[j] =
          j < columns ? to_integers(from + j * ld + 2 * at, 2 * steps, kFixedB, integers + j * kFixedRun) : 0;
    pack_panel_transposed(reinterpret_cast<const float*>(integers), kRunSteps, steps, columns, to);
    to = scales + width;
  }
}

// The same from int8 codes, which stay as they are; absmax: of their rows.
HWY_INLINE void pack_fixed_transposed(const int8_t* from, const float* absmax, int64_t ld, int64_t k,
                                      int64_t columns, float* to) {
  const int64_t width = gemm_panel_width();
  columns = std::min(columns, width);
  for (int64_t at = 0; at < k; at += kRunSteps) {
    const int64_t steps = std::min(kRunSteps, k - at);
    pack_panel_transposed(reinterpret_cast<const Int8Pair*>(from) + at, ld / 2, steps, columns, to);
    to += steps * width;
    for (int64_t j = 0; j < width; ++j) to[j] = j < columns ? absmax[j] / 127 : 0;
    to += width;
  }
}

// Some columns of one panel of B [2k, n] over one run: value(row, columns) gives a vector of their values.
template <class Value>
HWY_INLINE void pack_fixed_run(int64_t steps, const Value& value, float* to, float* scales) {
  const GemmTag d;
  const hn::RebindToSigned<GemmTag> i32;
  const int64_t width = gemm_panel_width();
  auto most = hn::Zero(d), probe = hn::Zero(d);
  for (int64_t row = 0; row < 2 * steps; ++row) {
    const auto v = value(row);
    most = hn::Max(most, hn::Abs(v));
    probe = hn::MulAdd(v, hn::Zero(d), probe);
  }
  const auto usable = hn::And(hn::Ge(most, hn::Set(d, kLeastToScale)), hn::Eq(probe, hn::Zero(d)));
  const auto factor = hn::IfThenElseZero(usable, hn::Div(hn::Set(d, kFixedB), most));
  const auto integer = [&](int64_t row) HWY_ATTR {
    // 0 · NaN is not 0.
    return hn::NearestInt(hn::IfThenElseZero(usable, hn::Mul(value(row), factor)));
  };
  for (int64_t p = 0; p < steps; ++p, to += width) {
    const auto low = hn::And(integer(2 * p), hn::Set(i32, 0xFFFF));
    hn::Store(hn::BitCast(d, hn::Or(low, hn::ShiftLeft<16>(integer(2 * p + 1)))), d, to);
  }
  hn::Store(hn::Add(hn::Mul(most, hn::Set(d, 1 / kFixedB)), probe), d, scales);
}

// Panels of B [2k, n], columns [0, columns) of `from`: floats, or int8 codes with the absmax of rows [0, 2k).
template <class T>
HWY_INLINE void pack_fixed(const T* from, const float* absmax, int64_t ld, int64_t k, int64_t columns,
                           float* to) {
  const GemmTag d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d)), width = 2 * lanes;
  const auto value_of = [&](const T* p, int64_t row) HWY_ATTR {
    if constexpr (std::is_same_v<T, int8_t>) {
      const hn::Rebind<int8_t, GemmTag> d8;
      const hn::RebindToSigned<GemmTag> i32;
      return hn::Mul(hn::ConvertTo(d, hn::PromoteTo(i32, hn::LoadU(d8, p))), hn::Set(d, absmax[row] / 127));
    } else {
      return load_f32(d, p);
    }
  };
  for (int64_t j = 0; j < columns; j += width)
    for (int64_t at = 0; at < k; at += kRunSteps) {
      const int64_t steps = std::min(kRunSteps, k - at);
      for (int64_t half = 0; half < width; half += lanes) {
        const int64_t first = j + half, count = std::min(lanes, columns - first);
        float *panel = to + half, *scales = to + steps * width + half;
        if (count >= lanes) {
          const auto value = [&](int64_t row) HWY_ATTR {
            return value_of(from + (2 * at + row) * ld + first, 2 * at + row);
          };
          pack_fixed_run(steps, value, panel, scales);
        } else {
          const auto value = [&](int64_t row) HWY_ATTR {
            HWY_ALIGN T edge[hn::MaxLanes(GemmTag())] = {};
            for (int64_t i = 0; i < count; ++i) edge[i] = from[(2 * at + row) * ld + first + i];
            return value_of(edge, 2 * at + row);
          };
          pack_fixed_run(steps, value, panel, scales);
        }
      }
      to += (steps + 1) * width;
    }
}

// Up to six rows of A [m, 2k]. Writes up to four values beyond the six's end.
template <class T>
HWY_INLINE void pack_fixed_rows(const T* from, int64_t ld, int64_t k, int64_t rows, float* to) {
  HWY_ALIGN int16_t integers[kFixedRun * kFixedRows];
  for (int64_t at = 0; at < k; at += kRunSteps) {
    const int64_t steps = std::min(kRunSteps, k - at);
    float scales[kFixedRows];
    for (int64_t i = 0; i < rows; ++i)
      scales[i] = to_integers(from + i * ld + 2 * at, 2 * steps, kFixedA, integers + i * kFixedRun);
    pack_rows<kFixedRows>(reinterpret_cast<const float*>(integers), kRunSteps, steps, rows, to);
    to += steps * kFixedRows;
    for (int64_t i = 0; i < kFixedRows; ++i) to[i] = i < rows ? scales[i] : 0;
    to += kFixedRows;
  }
}

using FixedSum = hn::Vec<hn::RebindToSigned<GemmTag>>;
struct FixedSums {
  FixedSum l0, h0, l1, h1, l2, h2, l3, h3, l4, h4, l5, h5;
};

// low, high += both products of the pair x beside those in each lane of b0, b1.
HWY_INLINE void fixed_step(float x, hn::Vec<GemmTag> b0, hn::Vec<GemmTag> b1, FixedSum& low, FixedSum& high) {
  const GemmTag d;
  const hn::RebindToSigned<GemmTag> i32;
#if HWY_ARCH_X86
  const hn::Repartition<int16_t, GemmTag> i16;
  const auto pair = hn::BitCast(i16, hn::Set(d, x));
  auto none = hn::Zero(i32);
  low = hn::ReorderWidenMulAccumulate(i32, pair, hn::BitCast(i16, b0), low, none);
  high = hn::ReorderWidenMulAccumulate(i32, pair, hn::BitCast(i16, b1), high, none);
#else
  const auto first = [&](auto v) HWY_ATTR { return hn::ShiftRight<16>(hn::ShiftLeft<16>(v)); };
  const auto second = [&](auto v) HWY_ATTR { return hn::ShiftRight<16>(v); };
  const auto pair = hn::BitCast(i32, hn::Set(d, x)), u = hn::BitCast(i32, b0), v = hn::BitCast(i32, b1);
  low = hn::Add(low, hn::Add(hn::Mul(first(pair), first(u)), hn::Mul(second(pair), second(u))));
  high = hn::Add(high, hn::Add(hn::Mul(first(pair), first(v)), hn::Mul(second(pair), second(v))));
#endif
}

// R rows of one run; a and panel are moved to its scales.
template <int R>
HWY_INLINE void fixed_run(const float* HWY_RESTRICT& a, const float* HWY_RESTRICT& panel, int64_t steps,
                          FixedSums& s) {
  const GemmTag d;
  const size_t lanes = hn::Lanes(d);
  for (int64_t p = 0; p < steps; ++p, panel += 2 * lanes, a += kFixedRows) {
    const auto b0 = hn::Load(d, panel), b1 = hn::Load(d, panel + lanes);
    fixed_step(a[0], b0, b1, s.l0, s.h0);
    if constexpr (R > 1) fixed_step(a[1], b0, b1, s.l1, s.h1);
    if constexpr (R > 2) fixed_step(a[2], b0, b1, s.l2, s.h2);
    if constexpr (R > 3) fixed_step(a[3], b0, b1, s.l3, s.h3);
    if constexpr (R > 4) fixed_step(a[4], b0, b1, s.l4, s.h4);
    if constexpr (R > 5) fixed_step(a[5], b0, b1, s.l5, s.h5);
  }
}

#if HWY_TARGET == HWY_AVX2
// All sixteen registers are taken: GCC would make the products of a step first and keep sums in memory
// meanwhile.
template <>
HWY_INLINE void fixed_run<6>(const float* HWY_RESTRICT& a, const float* HWY_RESTRICT& panel, int64_t steps,
                             FixedSums& s) {
// clang-format off
#define NIBBLE_FIXED_ROW(offset, low, high)           \
  "vpbroadcastd " #offset "(%[a]), %%ymm15\n\t"       \
  "vpmaddwd %%ymm12, %%ymm15, %%ymm14\n\t"            \
  "vpmaddwd %%ymm13, %%ymm15, %%ymm15\n\t"            \
  "vpaddd %%ymm14, %[" #low "], %[" #low "]\n\t"      \
  "vpaddd %%ymm15, %[" #high "], %[" #high "]\n\t"
  asm("1:\n\t"
      "vmovdqa (%[panel]), %%ymm12\n\t"
      "vmovdqa 32(%[panel]), %%ymm13\n\t"
      NIBBLE_FIXED_ROW(0, l0, h0)
      NIBBLE_FIXED_ROW(4, l1, h1)
      NIBBLE_FIXED_ROW(8, l2, h2)
      NIBBLE_FIXED_ROW(12, l3, h3)
      NIBBLE_FIXED_ROW(16, l4, h4)
      NIBBLE_FIXED_ROW(20, l5, h5)
      "add $64, %[panel]\n\t"
      "add $24, %[a]\n\t"
      "dec %[steps]\n\t"
      "jnz 1b"
      : [a] "+r"(a), [panel] "+r"(panel), [steps] "+r"(steps), [l0] "+x"(s.l0.raw), [h0] "+x"(s.h0.raw),
        [l1] "+x"(s.l1.raw), [h1] "+x"(s.h1.raw), [l2] "+x"(s.l2.raw), [h2] "+x"(s.h2.raw),
        [l3] "+x"(s.l3.raw), [h3] "+x"(s.h3.raw), [l4] "+x"(s.l4.raw), [h4] "+x"(s.h4.raw),
        [l5] "+x"(s.l5.raw), [h5] "+x"(s.h5.raw)
      :
      : "ymm12", "ymm13", "ymm14", "ymm15", "memory", "cc");
// clang-format on
#undef NIBBLE_FIXED_ROW
}
#endif

// c[R, width] (+)= alpha · a · panel over k steps.
template <int R>
HWY_NOINLINE void fixed_micro(const float* HWY_RESTRICT a, const float* HWY_RESTRICT panel, int64_t k,
                              float alpha, Put put, float* HWY_RESTRICT c, int64_t ldc, int64_t columns) {
  const GemmTag d;
  const size_t lanes = hn::Lanes(d);
  HWY_ALIGN float total[kFixedRows * 2 * hn::MaxLanes(d)];
  for (size_t i = 0; i < R * 2 * lanes; i += lanes) hn::Store(hn::Zero(d), d, total + i);
  for (int64_t at = 0; at < k; at += kRunSteps) {
    const auto zero = hn::Zero(hn::RebindToSigned<GemmTag>());
    FixedSums s{zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero};
    fixed_run<R>(a, panel, std::min(kRunSteps, k - at), s);
    const auto s0 = hn::Load(d, panel), s1 = hn::Load(d, panel + lanes);
    const auto include = [&](int i, FixedSum low, FixedSum high) HWY_ATTR {
      float* to = total + static_cast<size_t>(i) * 2 * lanes;
      const auto scale = hn::Set(d, a[i]);
      hn::Store(hn::MulAdd(hn::ConvertTo(d, low), hn::Mul(scale, s0), hn::Load(d, to)), d, to);
      hn::Store(hn::MulAdd(hn::ConvertTo(d, high), hn::Mul(scale, s1), hn::Load(d, to + lanes)), d,
                to + lanes);
    };
    include(0, s.l0, s.h0);
    if constexpr (R > 1) include(1, s.l1, s.h1);
    if constexpr (R > 2) include(2, s.l2, s.h2);
    if constexpr (R > 3) include(3, s.l3, s.h3);
    if constexpr (R > 4) include(4, s.l4, s.h4);
    if constexpr (R > 5) include(5, s.l5, s.h5);
    panel += 2 * lanes;
    a += kFixedRows;
  }
  for (int i = 0; i < R; ++i, c += ldc) {
    const float* from = total + static_cast<size_t>(i) * 2 * lanes;
    gemm_store(hn::Load(d, from), hn::Load(d, from + lanes), alpha, put, c, columns);
  }
}

// f of how many of six rows there are, as a constant.
template <class F>
HWY_INLINE void with_rows(int64_t rows, const F& f) {
  switch (rows) {
    case 1:
      return f(std::integral_constant<int, 1>());
    case 2:
      return f(std::integral_constant<int, 2>());
    case 3:
      return f(std::integral_constant<int, 3>());
    case 4:
      return f(std::integral_constant<int, 4>());
    case 5:
      return f(std::integral_constant<int, 5>());
    default:
      return f(std::integral_constant<int, 6>());
  }
}

// c[rows, columns] (+)= alpha · a · packed; `next` floats from one six of rows to the next.
HWY_INLINE void fixed_block(int64_t rows, int64_t columns, int64_t k, float alpha, const float* a,
                            int64_t next, const float* packed, int64_t panel_stride, Put put, float* c,
                            int64_t ldc) {
  const int64_t width = gemm_panel_width(), floats = stored_steps(Step::kFixedPoint, k) * width;
  // Every six rows fetch their share of the next panel.
  const int64_t share = (floats * kFixedRows / rows + 15) / 16 * 16;
  for (int64_t j = 0; j < columns; j += width, packed += panel_stride) {
    const float *fetch = packed + panel_stride, *fetched = fetch + (j + width < columns ? floats : 0);
    for (int64_t i = 0; i < rows; i += kFixedRows) {
      for (const float* end = std::min(fetch + share, fetched); fetch < end; fetch += 16)
        hwy::Prefetch(fetch);
      const float* six = a + i / kFixedRows * next;
      float* to = c + i * ldc + j;
      with_rows(rows - i, [&](auto count) HWY_ATTR {
        fixed_micro<decltype(count)::value>(six, packed, k, alpha, put, to, ldc, columns - j);
      });
    }
  }
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
