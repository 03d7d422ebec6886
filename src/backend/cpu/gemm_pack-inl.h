// Operands of products in the form that gemm-inl.h reads. B is packed in panels of gemm_panel_width()
// columns: [panel][k][width], zero beyond the last column. A is packed by groups of kGemmRows rows:
// [group][k][kGemmRows]. Where pairs of bf16 are multiplied (Step), a pair stands in the place of each float
// and k counts pairs: packing moves their bits as if they were floats.
#include <hwy/cache_control.h>

#include <algorithm>
#include <type_traits>

#include "backend/cpu/gemm_step.h"
#include "backend/cpu/vector-inl.h"

#if defined(NIBBLE_BACKEND_CPU_GEMM_PACK_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_BACKEND_CPU_GEMM_PACK_INL_H
#undef NIBBLE_BACKEND_CPU_GEMM_PACK_INL_H
#else
#define NIBBLE_BACKEND_CPU_GEMM_PACK_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

using GemmTag = hn::ScalableTag<float>;
// As many as there are registers for their sums: 32 of them, or 16.
#if HWY_TARGET == HWY_AVX3
constexpr int64_t kGemmRows = 12;
#else
constexpr int64_t kGemmRows = 6;
#endif
HWY_INLINE int64_t gemm_panel_width() { return 2 * static_cast<int64_t>(hn::Lanes(GemmTag())); }

// Panels from B [k, n]: columns [0, columns) of `from`, panels `panel_stride` floats apart.
// Row by row, so that memory is read in its order.
template <class T>
HWY_INLINE void pack_panels(const T* from, int64_t ld, int64_t k, int64_t columns, float* to,
                            int64_t panel_stride) {
  const GemmTag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), width = 2 * lanes,
                whole = columns / width * width;
  for (int64_t p = 0; p < k; ++p, from += ld, to += width) {
    float* panel = to;
    for (int64_t j = 0; j < whole; j += width, panel += panel_stride) {
      hn::Store(load_f32(d, from + j), d, panel);
      hn::Store(load_f32(d, from + j + lanes), d, panel + lanes);
    }
    if (whole == columns) continue;
    const int64_t rest = columns - whole;
    hn::Store(load_part(d, from + whole, static_cast<size_t>(std::min(rest, lanes))), d, panel);
    if (rest > lanes)
      hn::Store(load_part(d, from + whole + lanes, static_cast<size_t>(rest - lanes)), d, panel + lanes);
    else
      hn::Store(hn::Zero(d), d, panel + lanes);
  }
}

#if HWY_TARGET == HWY_AVX3
// to[p * stride + i] = from[i * ld + p] for 16 values of p and `rows` of i; the rest of 16 is zero. Stores
// ascend.
HWY_INLINE void transpose_16(const float* from, int64_t ld, int64_t rows, float* to, int64_t stride) {
  __m512 r[16], t[16];
#pragma GCC unroll 16
  for (int64_t i = 0; i < 16; ++i) r[i] = i < rows ? _mm512_loadu_ps(from + i * ld) : _mm512_setzero_ps();
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    const int at = i / 4 * 4 + i % 4 / 2;  // the pair of rows 0 and 1 of four, with that of 2 and 3
    const __m512d a = _mm512_castps_pd(t[at]), b = _mm512_castps_pd(t[at + 2]);
    r[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
    r[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
  }
  // Block l of r[4 g + c]: rows 4 g … 4 g + 3 at p = 4 l + c.
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const __m512 a = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88),
                 b = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88);
    const __m512 e = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xDD),
                 f = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xDD);
    t[c] = _mm512_shuffle_f32x4(a, b, 0x88);
    t[4 + c] = _mm512_shuffle_f32x4(e, f, 0x88);
    t[8 + c] = _mm512_shuffle_f32x4(a, b, 0xDD);
    t[12 + c] = _mm512_shuffle_f32x4(e, f, 0xDD);
  }
#pragma GCC unroll 16
  for (int64_t p = 0; p < 16; ++p) _mm512_storeu_ps(to + p * stride, t[p]);
}
#endif

// One panel from rows of Bᵀ [n, k]: 4 x 4 transpositions, a few steps of k at a time so that what is written
// stays near.
template <class T>
HWY_INLINE void pack_panel_transposed(const T* from, int64_t ld, int64_t k, int64_t columns, float* to) {
  const hn::CappedTag<float, 4> d;
  const int64_t width = gemm_panel_width(), whole = std::min(columns, width) / 4 * 4;
  constexpr int64_t kSteps = 32;
#if HWY_TARGET == HWY_AVX3
  if constexpr (std::is_same_v<T, float>)
    if (columns >= width) {
      const int64_t sixteens = k / 16 * 16;
      for (int64_t p = 0; p < sixteens; p += 16)
        for (int64_t j = 0; j < width; j += 16)
          transpose_16(from + j * ld + p, ld, 16, to + p * width + j, width);
      from += sixteens;
      to += sixteens * width;
      k -= sixteens;
    }
#endif
  for (int64_t p0 = 0; p0 < k; p0 += kSteps, from += kSteps, to += kSteps * width) {
    const int64_t steps = std::min(kSteps, k - p0), fours = steps / 4 * 4;
    for (int64_t j = 0; j < whole; j += 4) {
      const T* rows = from + j * ld;
      for (int64_t p = 0; p < fours; p += 4) {
        const auto r0 = load_f32(d, rows + p), r1 = load_f32(d, rows + ld + p);
        const auto r2 = load_f32(d, rows + 2 * ld + p), r3 = load_f32(d, rows + 3 * ld + p);
        const auto a = hn::InterleaveLower(d, r0, r2), b = hn::InterleaveLower(d, r1, r3);
        const auto c = hn::InterleaveUpper(d, r0, r2), e = hn::InterleaveUpper(d, r1, r3);
        float* o = to + p * width + j;
        hn::StoreU(hn::InterleaveLower(d, a, b), d, o);
        hn::StoreU(hn::InterleaveUpper(d, a, b), d, o + width);
        hn::StoreU(hn::InterleaveLower(d, c, e), d, o + 2 * width);
        hn::StoreU(hn::InterleaveUpper(d, c, e), d, o + 3 * width);
      }
      for (int64_t p = fours; p < steps; ++p)
        for (int64_t i = 0; i < 4; ++i) to[p * width + j + i] = widen(rows[i * ld + p]);
    }
    for (int64_t j = whole; j < width; ++j)
      for (int64_t p = 0; p < steps; ++p) to[p * width + j] = j < columns ? widen(from[j * ld + p]) : 0.0f;
  }
}

// Panels of pairs from bf16 B [rows, n]: rows 2p and 2p + 1 interleaved; a zero beside a last one.
HWY_INLINE void pack_panels_of_pairs(const BFloat16* from, int64_t ld, int64_t rows, int64_t columns,
                                     float* to, int64_t panel_stride) {
  const hn::RebindToUnsigned<GemmTag> d;
  const hn::Rebind<uint16_t, GemmTag> d16;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), width = 2 * lanes,
                padded = (columns + width - 1) / width * width;
  const auto* bits = reinterpret_cast<const uint16_t*>(from);
  constexpr int64_t kAhead = 16;  // rows: too short, in few columns, to be seen coming
  for (int64_t p = 0; p < rows; p += 2, bits += 2 * ld, to += width) {
    const uint16_t* second = p + 1 < rows ? bits + ld : nullptr;
    for (int64_t j = 0; j < padded; j += lanes) {
      if (j % 32 == 0) {
        hwy::Prefetch(bits + kAhead * ld + j);
        hwy::Prefetch(bits + (kAhead + 1) * ld + j);
      }
      auto* o = reinterpret_cast<uint32_t*>(to + j / width * panel_stride + j % width);
      if (HWY_LIKELY(second != nullptr && j + lanes <= columns)) {
        const auto upper = hn::ShiftLeft<16>(hn::PromoteTo(d, hn::LoadU(d16, second + j)));
        hn::Store(hn::Or(hn::PromoteTo(d, hn::LoadU(d16, bits + j)), upper), d, o);
        continue;
      }
      for (int64_t i = j; i < j + lanes; ++i)
        o[i - j] =
            i >= columns ? 0u : bits[i] | (second == nullptr ? 0u : static_cast<uint32_t>(second[i]) << 16);
    }
  }
}

// kRows rows of A [m, k] side by side: to[p * kRows + i] = a[i, p]. Writes up to four values beyond
// k * kRows.
template <int64_t kRows = kGemmRows, class T>
HWY_INLINE void pack_rows(const T* from, int64_t ld, int64_t k, int64_t rows, float* to) {
  const hn::CappedTag<float, 4> d;
#if HWY_TARGET == HWY_AVX3
  if constexpr (std::is_same_v<T, float> && kRows == 12)
    if (rows == kRows) {
      const int64_t sixteens = k / 16 * 16;
      for (int64_t p = 0; p < sixteens; p += 16) transpose_16(from + p, ld, kRows, to + p * kRows, kRows);
      from += sixteens;
      to += sixteens * kRows;
      k -= sixteens;
    }
#endif
  const int64_t fours = kRows == 6 ? (rows == 6 ? 4 : 0) : rows / 4 * 4, steps = k / 4 * 4;
  int64_t done = 0;
  for (; done < fours; done += 4)
    for (int64_t p = 0; p < steps; p += 4) {
      const T* at = from + done * ld + p;
      const auto r0 = load_f32(d, at), r1 = load_f32(d, at + ld), r2 = load_f32(d, at + 2 * ld);
      const auto r3 = load_f32(d, at + 3 * ld);
      const auto a = hn::InterleaveLower(d, r0, r2), b = hn::InterleaveLower(d, r1, r3);
      const auto c = hn::InterleaveUpper(d, r0, r2), e = hn::InterleaveUpper(d, r1, r3);
      float* o = to + p * kRows + done;
      if constexpr (kRows == 6) {  // each store of four is partly overwritten by the next
        const auto r4 = load_f32(d, at + 4 * ld), r5 = load_f32(d, at + 5 * ld);
        const auto f = hn::InterleaveLower(d, r4, r5), g = hn::InterleaveUpper(d, r4, r5);
        hn::StoreU(hn::InterleaveLower(d, a, b), d, o);
        hn::StoreU(f, d, o + 4);
        hn::StoreU(hn::InterleaveUpper(d, a, b), d, o + 6);
        hn::StoreU(hn::ConcatUpperUpper(d, f, f), d, o + 10);
        hn::StoreU(hn::InterleaveLower(d, c, e), d, o + 12);
        hn::StoreU(g, d, o + 16);
        hn::StoreU(hn::InterleaveUpper(d, c, e), d, o + 18);
        hn::StoreU(hn::ConcatUpperUpper(d, g, g), d, o + 22);
      } else {
        hn::StoreU(hn::InterleaveLower(d, a, b), d, o);
        hn::StoreU(hn::InterleaveUpper(d, a, b), d, o + kRows);
        hn::StoreU(hn::InterleaveLower(d, c, e), d, o + 2 * kRows);
        hn::StoreU(hn::InterleaveUpper(d, c, e), d, o + 3 * kRows);
      }
    }
  if (done > 0 && kRows == 6) done = 6;
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t p = i < done ? steps : 0; p < k; ++p) to[p * kRows + i] = widen(from[i * ld + p]);
}

// The same from Aᵀ [k, m].
template <class T>
HWY_INLINE void pack_rows_transposed(const T* from, int64_t ld, int64_t k, int64_t rows, float* to) {
  const hn::CappedTag<float, 4> d4;
  const hn::CappedTag<float, 2> d2;
  if (rows == kGemmRows) {
    for (int64_t p = 0; p < k; ++p, from += ld, to += kGemmRows) {
      for (int64_t i = 0; i + 4 <= kGemmRows; i += 4) hn::StoreU(load_f32(d4, from + i), d4, to + i);
      if constexpr (kGemmRows % 4 == 2) hn::StoreU(load_f32(d2, from + 4), d2, to + 4);
    }
    return;
  }
  for (int64_t p = 0; p < k; ++p)
    for (int64_t i = 0; i < rows; ++i) to[p * kGemmRows + i] = widen(from[p * ld + i]);
}

// The same of pairs from bf16 Aᵀ [k, m]: rows 2p and 2p + 1 interleaved; a zero beside a last one.
template <int64_t kRows = kGemmRows>
HWY_INLINE void pack_rows_transposed_of_pairs(const BFloat16* from, int64_t ld, int64_t k, int64_t rows,
                                              float* to) {
  const hn::CappedTag<uint32_t, 4> d;
  const hn::Rebind<uint16_t, decltype(d)> d16;
  const auto* bits = reinterpret_cast<const uint16_t*>(from);
  for (int64_t p = 0; p < k; p += 2, bits += 2 * ld, to += kRows) {
    auto* o = reinterpret_cast<uint32_t*>(to);
    const uint16_t* second = p + 1 < k ? bits + ld : nullptr;
    int64_t i = 0;
    for (; second != nullptr && i + 4 <= rows; i += 4)
      hn::StoreU(hn::Or(hn::PromoteTo(d, hn::LoadU(d16, bits + i)),
                        hn::ShiftLeft<16>(hn::PromoteTo(d, hn::LoadU(d16, second + i)))),
                 d, o + i);
    for (; i < rows; ++i) o[i] = bits[i] | (second == nullptr ? 0u : static_cast<uint32_t>(second[i]) << 16);
  }
}

// Operands of products by kStep, which bf16 gives pairs to; `k` counts values, an odd last one of rows that
// stand one below the other is paired with zero.
template <Step kStep>
HWY_INLINE int64_t steps_of(int64_t k) {
  return kStep == Step::kFloat ? k : (k + 1) / 2;
}
template <Step kStep, class T>
HWY_INLINE void pack_rows_for(const T* from, int64_t ld, int64_t k, int64_t rows, float* to) {
  if constexpr (kStep == Step::kFloat)
    pack_rows(from, ld, k, rows, to);
  else
    pack_rows(reinterpret_cast<const float*>(from), ld / 2, k / 2, rows, to);
}
template <Step kStep, class T>
HWY_INLINE void pack_rows_transposed_for(const T* from, int64_t ld, int64_t k, int64_t rows, float* to) {
  if constexpr (kStep == Step::kFloat)
    pack_rows_transposed(from, ld, k, rows, to);
  else
    pack_rows_transposed_of_pairs(from, ld, k, rows, to);
}
template <Step kStep, class T>
HWY_INLINE void pack_panel_transposed_for(const T* from, int64_t ld, int64_t k, int64_t columns, float* to) {
  if constexpr (kStep == Step::kFloat)
    pack_panel_transposed(from, ld, k, columns, to);
  else
    pack_panel_transposed(reinterpret_cast<const float*>(from), ld / 2, k / 2, columns, to);
}
template <Step kStep, class T>
HWY_INLINE void pack_panels_for(const T* from, int64_t ld, int64_t k, int64_t columns, float* to,
                                int64_t panel_stride) {
  if constexpr (kStep == Step::kFloat)
    pack_panels(from, ld, k, columns, to, panel_stride);
  else
    pack_panels_of_pairs(from, ld, k, columns, to, panel_stride);
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
