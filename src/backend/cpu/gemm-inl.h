// The inside of a product: blocks of f32, six rows by two vectors at a time. Every result is one chain of multiply-adds
// over k in ascending order, so its bits depend on neither its place in a tile nor how the tiles were divided.
//
// B is packed in panels of panel_width() columns: [panel][k][width], zero beyond the last column. A is read as it lies,
// by rows (A [m, k]) or by columns (A [k, m]).
#include <algorithm>

#include "backend/cpu/vector-inl.h"

#if defined(NIBBLE_BACKEND_CPU_GEMM_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_BACKEND_CPU_GEMM_INL_H
#undef NIBBLE_BACKEND_CPU_GEMM_INL_H
#else
#define NIBBLE_BACKEND_CPU_GEMM_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

using GemmTag = hn::ScalableTag<float>;
constexpr int64_t kGemmRows = 6;
HWY_INLINE int64_t gemm_panel_width() { return 2 * static_cast<int64_t>(hn::Lanes(GemmTag())); }

// One panel from rows of B [k, n]: columns [0, width) of `from`, the rest zero.
template <class T>
HWY_INLINE void pack_panel(const T* from, int64_t ld, int64_t k, int64_t columns, float* to) {
  const GemmTag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d)), width = 2 * lanes;
  for (int64_t p = 0; p < k; ++p, from += ld, to += width) {
    if (columns >= width) {
      hn::Store(load_f32(d, from), d, to);
      hn::Store(load_f32(d, from + lanes), d, to + lanes);
    } else {
      hn::Store(load_part(d, from, static_cast<size_t>(std::min(columns, lanes))), d, to);
      hn::Store(load_part(d, from + lanes, static_cast<size_t>(std::max<int64_t>(columns - lanes, 0))), d, to + lanes);
    }
  }
}

// One panel from rows of Bᵀ [n, k]: 4 x 4 transpositions.
template <class T>
HWY_INLINE void pack_panel_transposed(const T* from, int64_t ld, int64_t k, int64_t columns, float* to) {
  const hn::CappedTag<float, 4> d;
  const int64_t width = gemm_panel_width();
  int64_t j = 0;
  if (hn::Lanes(d) == 4) {
    for (; j + 4 <= std::min(columns, width); j += 4) {
      const T* rows = from + j * ld;
      int64_t p = 0;
      for (; p + 4 <= k; p += 4) {
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
      for (; p < k; ++p)
        for (int64_t i = 0; i < 4; ++i) to[p * width + j + i] = widen(rows[i * ld + p]);
    }
  }
  for (; j < width; ++j)
    for (int64_t p = 0; p < k; ++p) to[p * width + j] = j < columns ? widen(from[j * ld + p]) : 0.0f;
}

// c[R, width] (+)= alpha · a[R, k] · panel. kByColumns: a is [k, …] with `lda` between steps of k.
template <int R, bool kByColumns>
HWY_INLINE void gemm_micro(const float* HWY_RESTRICT a, int64_t lda, const float* HWY_RESTRICT panel, int64_t k, float alpha,
                           bool add, float* HWY_RESTRICT c, int64_t ldc, int64_t columns) {
  const GemmTag d;
  const size_t lanes = hn::Lanes(d);
  hn::Vec<GemmTag> s0[R], s1[R];
  for (int i = 0; i < R; ++i) s0[i] = s1[i] = hn::Zero(d);
#pragma GCC unroll 4
  for (int64_t p = 0; p < k; ++p) {
    const auto b0 = hn::Load(d, panel), b1 = hn::Load(d, panel + lanes);
    panel += 2 * lanes;
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      const auto x = hn::Set(d, kByColumns ? a[p * lda + i] : a[i * lda + p]);
      s0[i] = hn::MulAdd(x, b0, s0[i]);
      s1[i] = hn::MulAdd(x, b1, s1[i]);
    }
  }
  const auto scale = hn::Set(d, alpha);
  if (columns >= static_cast<int64_t>(2 * lanes)) {
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      float* row = c + i * ldc;
      auto v0 = hn::Mul(s0[i], scale), v1 = hn::Mul(s1[i], scale);
      if (add) {
        v0 = hn::Add(hn::LoadU(d, row), v0);
        v1 = hn::Add(hn::LoadU(d, row + lanes), v1);
      }
      hn::StoreU(v0, d, row);
      hn::StoreU(v1, d, row + lanes);
    }
    return;
  }
  HWY_ALIGN float edge[2 * hn::MaxLanes(d)];
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i) {
    hn::Store(hn::Mul(s0[i], scale), d, edge);
    hn::Store(hn::Mul(s1[i], scale), d, edge + lanes);
    for (int64_t j = 0; j < columns; ++j) c[i * ldc + j] = add ? c[i * ldc + j] + edge[j] : edge[j];
  }
}

template <bool kByColumns>
HWY_INLINE void gemm_rows(int64_t rows, const float* a, int64_t lda, const float* panel, int64_t k, float alpha, bool add,
                          float* c, int64_t ldc, int64_t columns) {
  switch (rows) {
    case 1: return gemm_micro<1, kByColumns>(a, lda, panel, k, alpha, add, c, ldc, columns);
    case 2: return gemm_micro<2, kByColumns>(a, lda, panel, k, alpha, add, c, ldc, columns);
    case 3: return gemm_micro<3, kByColumns>(a, lda, panel, k, alpha, add, c, ldc, columns);
    case 4: return gemm_micro<4, kByColumns>(a, lda, panel, k, alpha, add, c, ldc, columns);
    case 5: return gemm_micro<5, kByColumns>(a, lda, panel, k, alpha, add, c, ldc, columns);
    default: return gemm_micro<6, kByColumns>(a, lda, panel, k, alpha, add, c, ldc, columns);
  }
}

// c[rows, columns] (+)= alpha · a · packed, over one block of k. `panel_stride` floats lie between panels.
template <bool kByColumns>
HWY_INLINE void gemm_block(int64_t rows, int64_t columns, int64_t k, float alpha, const float* a, int64_t lda,
                           const float* packed, int64_t panel_stride, bool add, float* c, int64_t ldc) {
  const int64_t width = gemm_panel_width();
  for (int64_t j = 0; j < columns; j += width, packed += panel_stride)
    for (int64_t i = 0; i < rows; i += kGemmRows)
      gemm_rows<kByColumns>(std::min(kGemmRows, rows - i), kByColumns ? a + i : a + i * lda, lda, packed, k, alpha, add,
                            c + i * ldc + j, ldc, columns - j);
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
