// G = alpha · Sᵀ · X with few columns of S: S is packed once, columns of X are divided among threads, and
// each packs its own a block of rows at a time, or, where the processor multiplies pairs of bf16, pairs rows
// of X in registers as it reads them.
#include "backend/cpu/kernels.h"
#include "backend/cpu/local_buffer.h"
#include "backend/cpu/simd_targets.h"
#include "base/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/thin_gradient.cpp"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway wants it:
#include "backend/cpu/gemm-inl.h"

#ifndef NIBBLE_CPU_THIN_GRADIENT
#define NIBBLE_CPU_THIN_GRADIENT
namespace nibble::backend::cpu {
inline constexpr int64_t kThinBlock =
    256;  // rows of S and X of one pass: a panel of X stays in the first-level cache
inline constexpr int64_t kThinColumns = 96;    // of X at a time: a multiple of every panel width
inline constexpr int64_t kThinMostGroup = 12;  // columns of S side by side on any instruction set
}  // namespace nibble::backend::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

// Columns of S side by side. Pairs are read by eight: that many times two vectors of sums, and what X is
// paired in, fit the registers.
template <Step kStep>
constexpr int64_t kThinGroup = kStep == Step::kPair ? 8 : kGemmRows;
template <Step kStep>
int64_t thin_padded(int64_t r) {
  return (r + kThinGroup<kStep> - 1) / kThinGroup<kStep> * kThinGroup<kStep>;
}

// Rows [begin, end) of S, whole blocks: each block as its groups of columns.
template <class T, Step kStep>
void pack_typed(const Tensor& s, int64_t begin, int64_t end, float* to) {
  constexpr int64_t kGroup = kThinGroup<kStep>;
  const int64_t r = s.shape()[1], padded = thin_padded<kStep>(r);
  for (int64_t t = begin; t < end; t += kThinBlock) {
    const int64_t depth = std::min(kThinBlock, end - t);
    for (int64_t i = 0; i < r; i += kGroup) {
      const T* from = s.data<T>() + t * r + i;
      const int64_t count = std::min(kGroup, r - i);
      float* group = to + steps_of<kStep>(t) * padded + i * steps_of<kStep>(depth);
      if constexpr (kStep == Step::kPair) {
        if (count < kGroup) std::fill_n(group, kGroup * steps_of<kStep>(depth), 0.0f);
        pack_rows_transposed_of_pairs<kGroup>(from, r, depth, count, group);
      } else {
        pack_rows_transposed_for<kStep>(from, r, depth, count, group);
      }
    }
  }
}
void pack_thin(const Tensor& s, int64_t begin, int64_t end, Step step, float* to) {
  with_step(s.dtype(), step,
            [&](auto type, auto by) { pack_typed<decltype(type), by()>(s, begin, end, to); });
}

void write_thin(const float* sums, int64_t r, int64_t columns, int64_t column, const ThinArgs& args,
                const Tensor& g) {
  const int64_t n = args.transpose_out ? g.shape()[0] : g.shape()[1];
  float* out = g.data<float>();
  for (int64_t i = 0; i < r; ++i)
    for (int64_t j = 0; j < columns; ++j) {
      float& to = args.transpose_out ? out[(column + j) * r + i] : out[i * n + column + j];
      to = args.accumulate ? to + sums[i * kThinColumns + j] : sums[i * kThinColumns + j];
    }
}

#if HWY_TARGET == HWY_AVX3
// sums[8, 32] += of eight columns of S and 32 of X over some rows. kFetch: X has not been read before.
template <bool kFetch>
HWY_INLINE void sum_pairs(const float* s, const uint16_t* x, int64_t ld, int64_t rows, __mmask32 columns,
                          GemmTile& t) {
  const GemmTag d;
  constexpr int64_t kAhead = 64;  // rows: too short, in few columns, to be seen coming
  for (int64_t p = 0; p < rows; p += 2, x += 2 * ld, s += 8) {
    if constexpr (kFetch) {
      hwy::Prefetch(x + kAhead * ld);
      hwy::Prefetch(x + (kAhead + 1) * ld);
    }
    const __m512i first = _mm512_maskz_loadu_epi16(columns, x),
                  second = p + 1 < rows ? _mm512_maskz_loadu_epi16(columns, x + ld) : _mm512_setzero_si512();
    // Of each 8 columns, the first four and the last four.
    const hn::Vec<GemmTag> b0{_mm512_castsi512_ps(_mm512_unpacklo_epi16(first, second))},
        b1{_mm512_castsi512_ps(_mm512_unpackhi_epi16(first, second))};
    for_rows<8>(
        t, [&](int64_t i, auto& low, auto& high) HWY_ATTR __attribute__((always_inline)) {
          const auto pair = hn::Set(d, s[i]);
          low = gemm_step<Step::kPair>(pair, b0, low);
          high = gemm_step<Step::kPair>(pair, b1, high);
        });
  }
}

void columns_of_pairs(const float* packed, const Tensor& x, int64_t r, int64_t column, int64_t columns,
                      const ThinArgs& args, const Tensor& g) {
  const GemmTag d;
  constexpr int64_t kGroup = kThinGroup<Step::kPair>, kWidth = 32;
  const int64_t rows = x.shape()[0], n = x.shape()[1], padded = thin_padded<Step::kPair>(r);
  float* sums = local_buffer(LocalSlot::kC, (r + kThinMostGroup - 1) * kThinColumns);
  const auto* from = reinterpret_cast<const uint16_t*>(x.raw());
  const auto zero = hn::Zero(d), alpha = hn::Set(d, args.alpha);
  // Which four columns of `low` (0 to 15) and `high` (16 to 31) follow each other.
  const __m512i lower = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23),
                upper = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
  for (int64_t t = 0; t < rows; t += kThinBlock) {
    const int64_t depth = std::min(kThinBlock, rows - t), steps = steps_of<Step::kPair>(depth);
    for (int64_t j = 0; j < columns; j += kWidth) {
      const auto some = static_cast<__mmask32>(columns - j >= kWidth ? ~0u : (1u << (columns - j)) - 1);
      const uint16_t* block = from + t * n + column + j;
      for (int64_t i = 0; i < r; i += kGroup) {
        GemmTile tile{};
        for_rows<kGroup>(tile, [&](int64_t, auto& low, auto& high) HWY_ATTR { low = high = zero; });
        const float* s = packed + steps_of<Step::kPair>(t) * padded + i * steps;
        if (i == 0)
          sum_pairs<true>(s, block, n, depth, some, tile);
        else
          sum_pairs<false>(s, block, n, depth, some, tile);
        for_rows<kGroup>(tile, [&](int64_t row, auto& low, auto& high) HWY_ATTR {
          float* to = sums + (i + row) * kThinColumns + j;
          const auto put = [&](__m512i order, float* at) HWY_ATTR {
            const auto v = hn::Mul(hn::Vec<GemmTag>{_mm512_permutex2var_ps(low.raw, order, high.raw)}, alpha);
            hn::StoreU(t > 0 ? hn::Add(hn::LoadU(d, at), v) : v, d, at);
          };
          put(lower, to);
          put(upper, to + kWidth / 2);
        });
      }
    }
  }
  write_thin(sums, r, columns, column, args, g);
}
#endif

template <class T, Step kStep>
void columns_typed(const float* packed, const Tensor& x, int64_t r, int64_t column, int64_t columns,
                   const ThinArgs& args, const Tensor& g) {
#if HWY_TARGET == HWY_AVX3
  if constexpr (kStep == Step::kPair) return columns_of_pairs(packed, x, r, column, columns, args, g);
#endif
  const int64_t rows = x.shape()[0], n = x.shape()[1], padded = thin_padded<kStep>(r),
                width = gemm_panel_width();
  float* sums = local_buffer(LocalSlot::kC, (r + kThinMostGroup - 1) * kThinColumns);
  float* panels = local_buffer(LocalSlot::kB, kThinBlock * kThinColumns);
  for (int64_t t = 0; t < rows; t += kThinBlock) {
    const int64_t depth = std::min(kThinBlock, rows - t);
    const int64_t steps = steps_of<kStep>(depth);
    pack_panels_for<kStep>(x.data<T>() + t * n + column, n, depth, columns, panels, steps * width);
    gemm_block<RowsOfA::kPacked, kStep>(r, columns, steps, args.alpha, packed + steps_of<kStep>(t) * padded,
                                        kGemmRows * steps, panels, steps * width,
                                        t > 0 ? Put::kAdd : Put::kSet, sums, kThinColumns);
  }
  write_thin(sums, r, columns, column, args, g);
}
void thin_columns(const float* packed, const Tensor& x, int64_t r, int64_t column, int64_t columns,
                  const ThinArgs& args, Step step, const Tensor& g) {
  with_step(x.dtype(), step, [&](auto type, auto by) {
    columns_typed<decltype(type), by()>(packed, x, r, column, columns, args, g);
  });
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::backend::cpu {
HWY_EXPORT(pack_thin);
HWY_EXPORT(thin_columns);

void thin_gradient(Stream& stream, const Tensor& s, const Tensor& x, Tensor& g, ThinArgs args) {
  for (const Tensor* t : {&s, &x})
    require(t->dtype() == kF32 || t->dtype() == kBF16, "thin_gradient", "expected f32 or bf16, got {}",
            dtype_name(t->dtype()));
  const int64_t rows = x.shape()[0], n = x.shape()[1], r = s.shape()[1];
  if (r == 0 || n == 0) return;
  if (rows == 0) {
    if (!args.accumulate) std::fill_n(g.data<float>(), g.numel(), 0.0f);
    return;
  }
  const Step step = s.dtype() == kBF16 && x.dtype() == kBF16 ? bf16_step() : Step::kFloat;
  // Packing pads r and an odd number of rows, and writes up to four beyond.
  const int64_t floats = (rows + 1) * (r + kThinMostGroup - 1) + 4;
  float* packed =
      reinterpret_cast<float*>(stream.scratch(Stream::kKernelSlot, static_cast<size_t>(floats) * 4));
  parallel_for(rows, kThinBlock, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(pack_thin)(s, begin, end, step, packed);
  });
  parallel_for(n, kThinColumns, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(thin_columns)(packed, x, r, begin, end - begin, args, step, g);
  });
}

}  // namespace nibble::backend::cpu
#endif  // HWY_ONCE
