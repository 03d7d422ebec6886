// The inside of a product: blocks of f32, kGemmRows rows by two vectors at a time. Every result is one chain
// of multiply-adds over k in ascending order, so its bits depend on neither its place in a tile nor how the
// tiles were divided. Operands are packed (gemm_pack-inl.h); where packing A would cost more than it saves
// (few columns) it is read as it lies.
#include <hwy/cache_control.h>

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "backend/cpu/gemm_pack-inl.h"
#include "backend/cpu/pair_operand-inl.h"

#if defined(NIBBLE_BACKEND_CPU_GEMM_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_BACKEND_CPU_GEMM_INL_H
#undef NIBBLE_BACKEND_CPU_GEMM_INL_H
#else
#define NIBBLE_BACKEND_CPU_GEMM_INL_H
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

// How the rows of A lie: side by side (pack_rows), or as rows of a matrix.
enum class RowsOfA { kPacked, kAsStored };

// What becomes of what C holds: it is replaced, added to, or replaced by stores that go past the caches
// (every row of C on a vector's boundary, whole vectors of columns; the writer calls FlushStream at the end).
enum class Put { kSet, kAdd, kStream };

// sum + x · b of one step of k.
template <Step kStep>
HWY_INLINE hn::Vec<GemmTag> gemm_step(hn::Vec<GemmTag> x, hn::Vec<GemmTag> b, hn::Vec<GemmTag> sum) {
  if constexpr (kStep == Step::kFloat) return hn::MulAdd(x, b, sum);
#if HWY_TARGET == HWY_AVX3
  if constexpr (kStep == Step::kPair) {
    // Not an intrinsic: this target is compiled for every AVX-512, of which some lack the instruction.
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(x.raw), "v"(b.raw));
    return sum;
  }
#endif
  // The same in the instruction's order: the pair's second product is added first.
  const GemmTag d;
  const hn::RebindToUnsigned<GemmTag> u;
  const auto second = [&](auto v) HWY_ATTR {
    return hn::BitCast(d, hn::And(hn::BitCast(u, v), hn::Set(u, 0xFFFF0000u)));
  };
  const auto first = [&](auto v) HWY_ATTR { return hn::BitCast(d, hn::ShiftLeft<16>(hn::BitCast(u, v))); };
  return hn::MulAdd(first(x), first(b), hn::MulAdd(second(x), second(b), sum));
}

// One row of the tile: c[0, columns) (+)= alpha · (lo, hi). V: how many of the two are wanted.
template <int V = 2>
HWY_INLINE void gemm_store(hn::Vec<GemmTag> lo, hn::Vec<GemmTag> hi, float alpha, Put put, float* c,
                           int64_t columns) {
  const GemmTag d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto scale = hn::Set(d, alpha);
  lo = hn::Mul(lo, scale);
  hi = hn::Mul(hi, scale);
  const bool add = put == Put::kAdd;
  if (put == Put::kStream) {
    hn::Stream(lo, d, c);
    if constexpr (V == 2) hn::Stream(hi, d, c + lanes);
    return;
  }
  if (HWY_LIKELY(columns >= V * lanes)) {
    hn::StoreU(add ? hn::Add(hn::LoadU(d, c), lo) : lo, d, c);
    if constexpr (V == 2) hn::StoreU(add ? hn::Add(hn::LoadU(d, c + lanes), hi) : hi, d, c + lanes);
    return;
  }
  HWY_ALIGN float edge[2 * hn::MaxLanes(d)];
  hn::Store(lo, d, edge);
  hn::Store(hi, d, edge + lanes);
  for (int64_t j = 0; j < columns; ++j) c[j] = add ? c[j] + edge[j] : edge[j];
}

// What becomes of the sums of a block: c (+)= alpha · sums.
struct GemmSums {
  float alpha;
  Put put;
  float* c;
  int64_t ld;

  static constexpr bool kGoesOn = false;
  // Whole vectors of one row.
  template <int V, Step kStep>
  HWY_INLINE void store(hn::Vec<GemmTag> lo, hn::Vec<GemmTag> hi, int64_t row, int64_t column) const {
    const GemmTag d;
    const auto lanes = static_cast<int64_t>(hn::Lanes(d));
    gemm_store<V>(lo, hi, alpha, put, c + row * ld + column, V * lanes);
  }
  // The first columns of `rows` rows, two vectors each.
  template <Step kStep>
  HWY_NOINLINE void store_part(const float* sums, int64_t rows, int64_t row, int64_t column,
                               int64_t columns) const {
    const GemmTag d;
    const auto lanes = static_cast<int64_t>(hn::Lanes(d));
    for (int64_t i = 0; i < rows; ++i, sums += 2 * lanes)
      gemm_store(hn::Load(d, sums), hn::Load(d, sums + lanes), alpha, put, c + (row + i) * ld + column,
                 columns);
  }
};

// The same for the last block of a product: the steps of another pair of operands, packed alike, may go on in
// the same registers, and what comes of it, or of it and c, may be rounded to bf16 on its way to memory.
struct GemmResult {
  float alpha = 1;
  Put put = Put::kSet;
  float* c = nullptr;  // not touched where `rounded` is set and put is kSet
  int64_t ld = 0;

  const float *a = nullptr, *panels = nullptr;
  int64_t next_rows = 0, next_panel = 0, steps = 0;
  float before = 1;  // factor of the sums there

  BFloat16* rounded = nullptr;
  int64_t ld_rounded = 0;
  bool add_rounded = false;

  static constexpr bool kGoesOn = true;
  template <int V, Step kStep>
  HWY_INLINE void store(hn::Vec<GemmTag> lo, hn::Vec<GemmTag> hi, int64_t row, int64_t column) const {
    const GemmTag d;
    const auto lanes = static_cast<int64_t>(hn::Lanes(d));
    if (rounded == nullptr) return gemm_store<V>(lo, hi, alpha, put, c + row * ld + column, V * lanes);
    BFloat16* const at = rounded + row * ld_rounded + column;
    const auto to = operand_of<kStep>(at);
    const auto finish = [&](hn::Vec<GemmTag> v, int64_t i) HWY_ATTR __attribute__((always_inline)) {
      v = hn::Mul(v, hn::Set(d, alpha));
      if (put == Put::kAdd) v = hn::Add(hn::LoadU(d, c + row * ld + column + i), v);
      if (add_rounded) v = hn::Add(load_f32(d, at + i), v);
      store_f32(d, v, to + i);
    };
    finish(lo, 0);
    if constexpr (V == 2) finish(hi, lanes);
  }
  template <Step kStep>
  HWY_NOINLINE void store_part(const float* sums, int64_t rows, int64_t row, int64_t column,
                               int64_t columns) const {
    const GemmTag d;
    const auto lanes = static_cast<int64_t>(hn::Lanes(d));
    for (int64_t i = 0; i < rows; ++i, ++row, sums += 2 * lanes) {
      if (rounded == nullptr) {
        gemm_store(hn::Load(d, sums), hn::Load(d, sums + lanes), alpha, put, c + row * ld + column, columns);
        continue;
      }
      BFloat16* const to = rounded + row * ld_rounded + column;
      for_vectors(d, 0, columns, [&](const auto& at) HWY_ATTR {
        auto v = hn::Mul(at.load(d, sums), hn::Set(d, alpha));
        if (put == Put::kAdd) v = hn::Add(at.load(d, c + row * ld + column), v);
        if (add_rounded) v = hn::Add(at.load(d, to), v);
        at.store(d, v, operand_of<kStep>(to));
      });
    }
  }
};

// Sums of up to twelve rows by two vectors. Named: GCC keeps an array of them in memory.
template <class V>
struct RowsOfSums {
  V l0, h0, l1, h1, l2, h2, l3, h3, l4, h4, l5, h5;
  V l6, h6, l7, h7, l8, h8, l9, h9, l10, h10, l11, h11;
};
using GemmTile = RowsOfSums<hn::Vec<GemmTag>>;
// f(i, low, high) of the first R rows. f should always be inlined: else the sums live in memory from the
// start.
template <int R, class V, class F>
HWY_INLINE void for_rows(RowsOfSums<V>& t, const F& f) {
  static_assert(R <= kGemmRows && R <= 12);
  f(0, t.l0, t.h0);
  if constexpr (R > 1) f(1, t.l1, t.h1);
  if constexpr (R > 2) f(2, t.l2, t.h2);
  if constexpr (R > 3) f(3, t.l3, t.h3);
  if constexpr (R > 4) f(4, t.l4, t.h4);
  if constexpr (R > 5) f(5, t.l5, t.h5);
  if constexpr (R > 6) f(6, t.l6, t.h6);
  if constexpr (R > 7) f(7, t.l7, t.h7);
  if constexpr (R > 8) f(8, t.l8, t.h8);
  if constexpr (R > 9) f(9, t.l9, t.h9);
  if constexpr (R > 10) f(10, t.l10, t.h10);
  if constexpr (R > 11) f(11, t.l11, t.h11);
}

// t += a[R, k] · panel.
template <int R, int V, RowsOfA kRows, Step kStep>
HWY_INLINE void gemm_steps(const float* HWY_RESTRICT a, int64_t lda, const float* HWY_RESTRICT panel,
                           int64_t k, GemmTile& t) {
  const GemmTag d;
  const size_t lanes = hn::Lanes(d);
#pragma GCC unroll 4
  for (int64_t p = 0; p < k; ++p) {
    const auto b0 = hn::Load(d, panel), b1 = V == 2 ? hn::Load(d, panel + lanes) : b0;
    panel += 2 * lanes;
    for_rows<R>(
        t, [&](int64_t i, auto& low, auto& high) HWY_ATTR __attribute__((always_inline)) {
          const auto x = hn::Set(d, kRows == RowsOfA::kPacked ? a[p * kGemmRows + i] : a[i * lda + p]);
          low = gemm_step<kStep>(x, b0, low);
          if constexpr (V == 2) high = gemm_step<kStep>(x, b1, high);
        });
  }
}

// What a tile's sums are made of: steps of one pair of packed operands, then, where there are any, of
// another.
struct GemmSteps {
  const float *a, *panel;
  int64_t k;
  const float *more, *beside;
  int64_t steps;
  float before;  // factor of the sums between them
};

#if HWY_TARGET == HWY_AVX3
// The full tile of pairs in its own words: between two loops GCC would keep sums in memory.
HWY_INLINE void gemm_pairs(const GemmSteps& of, GemmTile& t) {
  static_assert(offsetof(GemmSteps, panel) == 8 && offsetof(GemmSteps, k) == 16 &&
                offsetof(GemmSteps, more) == 24 && offsetof(GemmSteps, beside) == 32 &&
                offsetof(GemmSteps, steps) == 40 && offsetof(GemmSteps, before) == 48);
  // clang-format off
#define NIBBLE_PAIR_ROW(at, low, high)                \
  "vbroadcastss " #at "(%%rax), %%zmm31\n\t"          \
  "vdpbf16ps %%zmm29, %%zmm31, %[" #low "]\n\t"       \
  "vdpbf16ps %%zmm30, %%zmm31, %[" #high "]\n\t"
  // Steps until rdx is 0.
#define NIBBLE_PAIR_STEPS(label)                      \
  #label ":\n\t"                                      \
  "vmovaps (%%rcx), %%zmm29\n\t"                      \
  "vmovaps 64(%%rcx), %%zmm30\n\t"                    \
  NIBBLE_PAIR_ROW(0, l0, h0) NIBBLE_PAIR_ROW(4, l1, h1)      \
  NIBBLE_PAIR_ROW(8, l2, h2) NIBBLE_PAIR_ROW(12, l3, h3)     \
  NIBBLE_PAIR_ROW(16, l4, h4) NIBBLE_PAIR_ROW(20, l5, h5)    \
  NIBBLE_PAIR_ROW(24, l6, h6) NIBBLE_PAIR_ROW(28, l7, h7)    \
  NIBBLE_PAIR_ROW(32, l8, h8) NIBBLE_PAIR_ROW(36, l9, h9)    \
  NIBBLE_PAIR_ROW(40, l10, h10) NIBBLE_PAIR_ROW(44, l11, h11) \
  "add $128, %%rcx\n\t"                               \
  "add $48, %%rax\n\t"                                \
  "dec %%rdx\n\t"                                     \
  "jnz " #label "b\n\t"
#define NIBBLE_ZERO(low, high)                        \
  "vpxord %[" #low "], %[" #low "], %[" #low "]\n\t"  \
  "vpxord %[" #high "], %[" #high "], %[" #high "]\n\t"
#define NIBBLE_SCALE(low, high)                       \
  "vmulps %%zmm31, %[" #low "], %[" #low "]\n\t"      \
  "vmulps %%zmm31, %[" #high "], %[" #high "]\n\t"
#define NIBBLE_TILE(each)                                                                      \
  each(l0, h0) each(l1, h1) each(l2, h2) each(l3, h3) each(l4, h4) each(l5, h5)                \
  each(l6, h6) each(l7, h7) each(l8, h8) each(l9, h9) each(l10, h10) each(l11, h11)
  asm(NIBBLE_TILE(NIBBLE_ZERO)
      "mov (%[of]), %%rax\n\t"
      "mov 8(%[of]), %%rcx\n\t"
      "mov 16(%[of]), %%rdx\n\t"
      NIBBLE_PAIR_STEPS(1)
      "mov 40(%[of]), %%rdx\n\t"
      "test %%rdx, %%rdx\n\t"
      "jz 3f\n\t"
      "vbroadcastss 48(%[of]), %%zmm31\n\t"
      NIBBLE_TILE(NIBBLE_SCALE)
      "mov 24(%[of]), %%rax\n\t"
      "mov 32(%[of]), %%rcx\n\t"
      NIBBLE_PAIR_STEPS(2)
      "3:"
      : [l0] "=&v"(t.l0.raw), [h0] "=&v"(t.h0.raw), [l1] "=&v"(t.l1.raw), [h1] "=&v"(t.h1.raw),
        [l2] "=&v"(t.l2.raw), [h2] "=&v"(t.h2.raw), [l3] "=&v"(t.l3.raw), [h3] "=&v"(t.h3.raw),
        [l4] "=&v"(t.l4.raw), [h4] "=&v"(t.h4.raw), [l5] "=&v"(t.l5.raw), [h5] "=&v"(t.h5.raw),
        [l6] "=&v"(t.l6.raw), [h6] "=&v"(t.h6.raw), [l7] "=&v"(t.l7.raw), [h7] "=&v"(t.h7.raw),
        [l8] "=&v"(t.l8.raw), [h8] "=&v"(t.h8.raw), [l9] "=&v"(t.l9.raw), [h9] "=&v"(t.h9.raw),
        [l10] "=&v"(t.l10.raw), [h10] "=&v"(t.h10.raw), [l11] "=&v"(t.l11.raw), [h11] "=&v"(t.h11.raw)
      : [of] "r"(&of)
      : "rax", "rcx", "rdx", "xmm29", "xmm30", "xmm31", "memory", "cc");
#undef NIBBLE_TILE
#undef NIBBLE_SCALE
#undef NIBBLE_ZERO
#undef NIBBLE_PAIR_STEPS
#undef NIBBLE_PAIR_ROW
  // clang-format on
}
#endif

// [R, V vectors] of `out` at (row, column) from a[R, k] · panel, k > 0.
template <int R, int V, RowsOfA kRows, Step kStep, class Out>
HWY_NOINLINE void gemm_micro(const float* HWY_RESTRICT a, int64_t lda, const float* HWY_RESTRICT panel,
                             int64_t k, const Out& out, int64_t row, int64_t column, int64_t columns) {
  const GemmTag d;
  const auto zero = hn::Zero(d);
  GemmTile t{zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero,
             zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero, zero};
  GemmSteps of{a, panel, k, nullptr, nullptr, 0, 1};
  if constexpr (Out::kGoesOn)
    if (out.steps > 0)
      of = {a,
            panel,
            k,
            out.a + row / kGemmRows * out.next_rows + row % kGemmRows,
            out.panels + column / gemm_panel_width() * out.next_panel,
            out.steps,
            out.before};
#if HWY_TARGET == HWY_AVX3
  if constexpr (Out::kGoesOn && R == 12 && V == 2 && kRows == RowsOfA::kPacked && kStep == Step::kPair) {
    gemm_pairs(of, t);
  } else
#endif
  {
    gemm_steps<R, V, kRows, kStep>(a, lda, panel, k, t);
    if constexpr (Out::kGoesOn)
      if (of.steps > 0) {
        const auto before = hn::Set(d, of.before);
        for_rows<R>(
            t, [&](int64_t, auto& low, auto& high) HWY_ATTR __attribute__((always_inline)) {
              low = hn::Mul(low, before);
              if constexpr (V == 2) high = hn::Mul(high, before);
            });
        gemm_steps<R, V, RowsOfA::kPacked, kStep>(of.more, 0, of.beside, of.steps, t);
      }
  }
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  if (HWY_LIKELY(columns >= V * lanes)) {
    const Out own = out;  // which no store may change
    return for_rows<R>(
        t, [&](int64_t i, auto& low, auto& high) HWY_ATTR
        __attribute__((always_inline)) { own.template store<V, kStep>(low, high, row + i, column); });
  }
  HWY_ALIGN float part[R * 2 * hn::MaxLanes(d)];
  for_rows<R>(
      t, [&](int64_t i, auto& low, auto& high) HWY_ATTR __attribute__((always_inline)) {
        hn::Store(low, d, part + i * 2 * lanes);
        hn::Store(high, d, part + (i * 2 + 1) * lanes);
      });
  out.template store_part<kStep>(part, R, row, column, columns);
}

// f of how many of `rows` rows come next, as a constant; returns it.
template <class F>
HWY_INLINE int64_t next_rows(int64_t rows, const F& f) {
  const auto with = [&](auto count) HWY_ATTR {
    f(count);
    return static_cast<int64_t>(count);
  };
  if (rows >= kGemmRows) return with(std::integral_constant<int, kGemmRows>());
  if constexpr (kGemmRows > 8)
    if (rows >= 8) return with(std::integral_constant<int, 8>());
  if (rows >= 4) return with(std::integral_constant<int, 4>());
  if (rows >= 2) return with(std::integral_constant<int, 2>());
  return with(std::integral_constant<int, 1>());
}

// `out` of a · packed over one block of k. a: rows `lda` apart, or packed with `lda` floats from one group of
// kGemmRows to the next; `panel_stride` floats lie between panels.
template <RowsOfA kRows, Step kStep, class Out>
HWY_INLINE void gemm_block(int64_t rows, int64_t columns, int64_t k, const float* a, int64_t lda,
                           const float* packed, int64_t panel_stride, const Out& out) {
  const int64_t width = gemm_panel_width();
  for (int64_t j = 0; j < columns; j += width, packed += panel_stride)
    for (int64_t i = 0; i < rows;) {
      const float* at = a + (kRows == RowsOfA::kPacked ? i / kGemmRows * lda + i % kGemmRows : i * lda);
      i += next_rows(rows - i, [&](auto count) HWY_ATTR {
        constexpr int R = decltype(count)::value;
        if (columns - j > width / 2)
          gemm_micro<R, 2, kRows, kStep>(at, lda, packed, k, out, i, j, columns - j);
        else
          gemm_micro<R, 1, kRows, kStep>(at, lda, packed, k, out, i, j, columns - j);
      });
    }
}
// c[rows, columns] (+)= alpha · a · packed.
template <RowsOfA kRows, Step kStep>
HWY_INLINE void gemm_block(int64_t rows, int64_t columns, int64_t k, float alpha, const float* a, int64_t lda,
                           const float* packed, int64_t panel_stride, Put put, float* c, int64_t ldc) {
  gemm_block<kRows, kStep>(rows, columns, k, a, lda, packed, panel_stride, GemmSums{alpha, put, c, ldc});
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
