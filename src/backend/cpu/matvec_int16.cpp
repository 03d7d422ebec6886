#include "backend/cpu/matvec_int16.h"

#include <hwy/cache_control.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "backend/cpu/block_scales.h"
#include "backend/cpu/convert.h"
#include "backend/cpu/simd_targets.h"
#include "backend/kernels/matvec.h"
#include "base/parallel.h"

#ifndef NIBBLE_CPU_MATVEC_INT16
#define NIBBLE_CPU_MATVEC_INT16
namespace nibble::backend::cpu {
// Rows of inputs, ready for products: x[t, i] ≈ values[t * stride + i] * scales[run * count + t], run = i
// / 64. Within a run values stand as the code books' shuffles deliver weights.
struct Int16Inputs {
  const int16_t* values;
  int64_t stride;
  const float* scales;
  int64_t count;  // of all rows, also in inputs from() one of them on
  Int16Inputs from(int64_t t) const { return {values + t * stride, stride, scales + t, count}; }
};
inline constexpr int64_t kAhead = 4096;  // bytes of weights between what is worked on and what is fetched
}  // namespace nibble::backend::cpu
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/matvec_int16.cpp"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway wants it:
#include "backend/cpu/integers-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

using D8 = hn::CappedTag<uint8_t, 32>;
using D16 = hn::Repartition<int16_t, D8>;
using D32 = hn::Repartition<int32_t, D8>;
using DF = hn::Repartition<float, D8>;
constexpr int64_t kBytes = HWY_MIN(HWY_LANES(uint8_t), 32);
constexpr int64_t kShorts = kBytes / 2;
constexpr int64_t kRun = 64;
constexpr float kLevels = 16383;  // of inputs: 15 bits with the sign
using V16 = hn::Vec<D16>;
using V32 = hn::Vec<D32>;

// sum + products of weights that a run hands on and the run's inputs from `at`; which 32-bit lane takes which
// product is the target's business, the total is exact.
HWY_INLINE V32 multiply_add(V16 w, const int16_t* inputs, int64_t at, V32 sum) {
  auto rest = hn::Zero(D32());
  sum = hn::ReorderWidenMulAccumulate(D32(), w, hn::LoadU(D16(), inputs + at), sum, rest);
  return hn::Add(sum, rest);
}

// Of every kBytes bytes of codes the high nibbles' lower and upper halves (of each 16 bytes), then the low
// nibbles'.
void arrange_pairs(const int16_t* from, int64_t n, int16_t* to) {
  for (int64_t i = 0; i < n; i += 2 * kBytes)
    for (int64_t nibble = 0; nibble < 2; ++nibble)
      for (int64_t upper = 0; upper < 2; ++upper)
        for (int64_t part = 0; part < kBytes / 16; ++part)
          for (int64_t k = 0; k < 8; ++k) *to++ = from[i + 2 * (16 * part + 8 * upper + k) + nibble];
}

// x (bf16, n values) in runs.
void prepare_inputs(const std::byte* x, int64_t n, int16_t* plain, int16_t* values, float* scales,
                    int64_t apart) {
  const auto* v = reinterpret_cast<const BFloat16*>(x);
  for (int64_t r = 0; r < n / kRun; ++r)
    scales[r * apart] = to_integers(v + r * kRun, kRun, kLevels, plain + r * kRun);
  arrange_pairs(plain, n, values);
}

struct CodebookRun {
  hn::Vec<D8> low, high;
  const uint8_t* codes;
  const float* scales;
  CodebookRun(const uint8_t* low_bytes, const uint8_t* high_bytes, const uint8_t* row,
              const float* run_scales)
      : low(hn::LoadDup128(D8(), low_bytes)),
        high(hn::LoadDup128(D8(), high_bytes)),
        codes(row),
        scales(run_scales) {}
  template <class Use>
  HWY_INLINE void weights(int64_t run, Use&& use) const {
    const auto mask = hn::Set(D8(), uint8_t{15});
    for (int64_t i = 0; i < 32; i += kBytes) {
      const auto v = hn::LoadU(D8(), codes + 32 * run + i);
      const auto upper = hn::And(hn::BitCast(D8(), hn::ShiftRight<4>(hn::BitCast(D16(), v))), mask);
      const auto lower = hn::And(v, mask);
      const auto ul = hn::TableLookupBytes(low, upper), uh = hn::TableLookupBytes(high, upper);
      const auto ll = hn::TableLookupBytes(low, lower), lh = hn::TableLookupBytes(high, lower);
      use(2 * i, hn::BitCast(D16(), hn::InterleaveLower(D8(), ul, uh)));
      use(2 * i + kShorts, hn::BitCast(D16(), hn::InterleaveUpper(D8(), ul, uh)));
      use(2 * i + 2 * kShorts, hn::BitCast(D16(), hn::InterleaveLower(D8(), ll, lh)));
      use(2 * i + 3 * kShorts, hn::BitCast(D16(), hn::InterleaveUpper(D8(), ll, lh)));
    }
  }
};

// The product of a row of weights and a row of inputs is
//   Σ over runs of (scales[run] · x.scales[run]) · (integer sum)
// in the same steps however many rows of either are taken together. Their sums stand in arrays that only
// constants index, so that they stay in registers.

// Four rows of weights, one of inputs.
template <size_t... I>
HWY_INLINE void dot_four_rows(const CodebookRun* rows, int64_t runs, const Int16Inputs& x, float* sums,
                              std::index_sequence<I...>) {
  hn::Vec<DF> acc[4] = {(static_cast<void>(I), hn::Zero(DF()))...};
  for (int64_t r = 0; r < runs; ++r) {
    V32 sum[4] = {(static_cast<void>(I), hn::Zero(D32()))...};
    const int16_t* values = x.values + r * kRun;
    (rows[I].weights(r, [&](int64_t at, V16 w) HWY_ATTR { sum[I] = multiply_add(w, values, at, sum[I]); }),
     ...);
    const float scale = x.scales[r * x.count];
    ((acc[I] = hn::MulAdd(hn::ConvertTo(DF(), sum[I]), hn::Set(DF(), rows[I].scales[r] * scale), acc[I])),
     ...);
  }
  ((sums[I] = hn::GetLane(hn::SumOfLanes(DF(), acc[I]))), ...);
}

// One row of weights, as many of inputs as there are I, from x on.
template <size_t... I>
HWY_INLINE void dot_inputs(const CodebookRun& row, int64_t runs, const Int16Inputs& x, float* sums,
                           int64_t ld, std::index_sequence<I...>) {
  constexpr size_t kCount = sizeof...(I);
  hn::Vec<DF> acc[kCount] = {(static_cast<void>(I), hn::Zero(DF()))...};
  for (int64_t r = 0; r < runs; ++r) {
    V32 sum[kCount] = {(static_cast<void>(I), hn::Zero(D32()))...};
    const int16_t* values = x.values + r * kRun;
    row.weights(r, [&](int64_t at, V16 w) HWY_ATTR {
      ((sum[I] = multiply_add(w, values + static_cast<int64_t>(I) * x.stride, at, sum[I])), ...);
    });
    const float *scales = x.scales + r * x.count, scale = row.scales[r];
    ((acc[I] = hn::MulAdd(hn::ConvertTo(DF(), sum[I]), hn::Set(DF(), scale * scales[I]), acc[I])), ...);
  }
  ((sums[static_cast<int64_t>(I) * ld] = hn::GetLane(hn::SumOfLanes(DF(), acc[I]))), ...);
}

// sums[t * ld + i] of `count` rows of weights and every row of inputs. scales: runs floats for each of the
// rows, whose codes follow one another.
void codebook_rows(const uint8_t* low, const uint8_t* high, const uint8_t* codes, int64_t count, int64_t runs,
                   const float* scales, const Int16Inputs& x, float* sums, int64_t ld) {
  const int64_t bytes = 32 * runs, ahead = (kAhead + bytes - 1) / bytes;
  const auto row_at = [&](int64_t i) HWY_ATTR {
    if (i + ahead < count)  // what follows is another thread's
      for (int64_t at = 0; at < bytes; at += 64) hwy::Prefetch(codes + (i + ahead) * bytes + at);
    return CodebookRun(low, high, codes + i * bytes, scales + i * runs);
  };
  int64_t i = 0;
  if (x.count == 1)
    for (; i + 4 <= count; i += 4) {
      const CodebookRun rows[4] = {row_at(i), row_at(i + 1), row_at(i + 2), row_at(i + 3)};
      dot_four_rows(rows, runs, x, sums + i, std::make_index_sequence<4>());
    }
  for (; i < count; ++i) {
    const CodebookRun row = row_at(i);
    int64_t t = 0;
    for (; t + 8 <= x.count; t += 8)
      dot_inputs(row, runs, x.from(t), sums + t * ld + i, ld, std::make_index_sequence<8>());
    for (; t + 4 <= x.count; t += 4)
      dot_inputs(row, runs, x.from(t), sums + t * ld + i, ld, std::make_index_sequence<4>());
    for (; t < x.count; ++t)
      dot_inputs(row, runs, x.from(t), sums + t * ld + i, ld, std::make_index_sequence<1>());
  }
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::backend::cpu {
namespace {

HWY_EXPORT(prepare_inputs);
HWY_EXPORT(codebook_rows);

constexpr int64_t kMostRows = 256;  // of weights that one chunk of work takes

// A code book's values as 14-bit integers, split into bytes.
struct IntegerBook {
  alignas(16) uint8_t low[16], high[16];
  explicit IntegerBook(const quant::Codebook4& book) {
    for (size_t i = 0; i < 16; ++i) {
      const auto bits = static_cast<uint16_t>(static_cast<int16_t>(std::lrintf(book.values[i] * 8191.0f)));
      low[i] = static_cast<uint8_t>(bits & 0xFF);
      high[i] = static_cast<uint8_t>(bits >> 8);
    }
  }
};

}  // namespace

bool matvec_int16_supports(const quant::Weight& w) {
  return w.format->kind == quant::Kind::kCodebook4 && w.cols() % 64 == 0 && w.block % 64 == 0;
}

void matvec_int16(Stream& stream, const Tensor& x, std::span<Matvec> products) {
  const int64_t cols = x.shape().last(), count = x.shape().rows(), runs = cols / 64;
  // Scratch: values of each input row, one row in plain order, scales.
  auto* values = reinterpret_cast<int16_t*>(
      stream.scratch(Stream::kKernelSlot, static_cast<size_t>((count + 1) * cols * 2 + count * runs * 4)));
  auto* scales = reinterpret_cast<float*>(values + (count + 1) * cols);
  for (int64_t t = 0; t < count; ++t) HWY_DYNAMIC_DISPATCH(prepare_inputs)
  (x.raw() + t * cols * 2, cols, values + count * cols, values + t * cols, scales + t, count);
  const Int16Inputs inputs{values, cols, scales, count};
  int64_t all = 0;
  for (const Matvec& product : products) all += product.w->rows();
  // Two chunks for each thread: long stretches of memory are read faster than short ones in turn.
  const int64_t grain = std::clamp<int64_t>((all / (2 * threads()) + 3) / 4 * 4, 4, kMostRows);
  parallel_for(all, grain, [&](int64_t begin, int64_t end) {
    int64_t first = 0;  // of the rows of all weights the product's first
    for (const auto& [w, y] : products) {
      const int64_t rows = w->rows(), from = std::max(begin - first, int64_t{0}),
                    n = std::min(end - first, rows) - from;
      first += rows;
      if (n <= 0) continue;
      float results[kMatvecRows * kMostRows];
      std::vector<float> row_scales(static_cast<size_t>(n * runs));
      const IntegerBook book(*w->format->codebook);
      const BlockScales absmax(*w);
      for (int64_t i = 0; i < n * runs; ++i)
        row_scales[static_cast<size_t>(i)] = absmax[(from * cols + i * 64) / w->block] * (1.0f / 8191.0f);
      HWY_DYNAMIC_DISPATCH(codebook_rows)
      (book.low, book.high, reinterpret_cast<const uint8_t*>(w->codes.raw()) + from * cols / 2, n, runs,
       row_scales.data(), inputs, results, kMostRows);
      for (int64_t t = 0; t < count; ++t)
        convert_values(kF32, reinterpret_cast<const std::byte*>(results + t * kMostRows), n, y.dtype(),
                       y.raw() + (t * rows + from) * dtype_bytes(y.dtype()));
    }
  });
}

}  // namespace nibble::backend::cpu
#endif  // HWY_ONCE
