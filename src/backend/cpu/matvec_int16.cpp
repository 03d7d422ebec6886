#include "backend/cpu/matvec_int16.h"

#include <hwy/cache_control.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "backend/cpu/block_scales.h"
#include "backend/cpu/convert.h"
#include "backend/cpu/simd_targets.h"
#include "backend/kernels/matvec.h"
#include "base/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/matvec_int16.cpp"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway wants it:
#include "backend/cpu/ggml-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

using D8 = hn::CappedTag<uint8_t, 32>;
using D16 = hn::Repartition<int16_t, D8>;
using D32 = hn::Repartition<int32_t, D8>;
using DF = hn::Repartition<float, D8>;
using H8 = hn::Rebind<uint8_t, D16>;  // as many bytes as there are 16-bit lanes
constexpr int64_t kBytes = HWY_MIN(HWY_LANES(uint8_t), 32);
constexpr int64_t kShorts = kBytes / 2;

using V16 = hn::Vec<D16>;
using V32 = hn::Vec<D32>;

// sum + pairwise products; which lane takes which pair is the target's business, the total is exact.
HWY_INLINE V32 multiply_add(V16 w, const int16_t* x, V32 sum) {
  auto rest = hn::Zero(D32());
  sum = hn::ReorderWidenMulAccumulate(D32(), w, hn::LoadU(D16(), x), sum, rest);
  return hn::Add(sum, rest);
}

// Int16Inputs of a run are stored in the order in which the code books' shuffles deliver weights: of every
// kBytes bytes of codes the high nibbles' lower and upper halves (of each 16 bytes), then the low nibbles'.
void arrange_pairs(const int16_t* from, int64_t n, int16_t* to) {
  for (int64_t i = 0; i < n; i += 2 * kBytes)
    for (int64_t nibble = 0; nibble < 2; ++nibble)
      for (int64_t upper = 0; upper < 2; ++upper)
        for (int64_t part = 0; part < kBytes / 16; ++part)
          for (int64_t k = 0; k < 8; ++k) *to++ = from[i + 2 * (16 * part + 8 * upper + k) + nibble];
}

// x (bf16, n values) in runs. `levels` is what a run's largest magnitude becomes; a run below kLeast counts
// as zero (its reciprocal would overflow), one that is not finite makes every product NaN.
void prepare_inputs(const std::byte* x, int64_t n, int64_t run, float levels, bool pairs, int16_t* plain,
                    Int16Inputs to) {
  constexpr float kLeast = 0x1.0p-100f;
  const F32 d;
  const hn::Rebind<int16_t, F32> d16;
  const auto* v = reinterpret_cast<const BFloat16*>(x);
  int16_t* values = pairs ? plain : to.values;
  for (int64_t r = 0; r < n / run; ++r, v += run, values += run) {
    auto most = hn::Zero(d), sum = hn::Zero(d), probe = hn::Zero(d);
    for (int64_t i = 0; i < run; i += kLanes) {
      const auto f = load_f32(d, v + i);
      most = hn::Max(most, hn::Abs(f));
      sum = hn::Add(sum, f);
      probe = hn::MulAdd(f, hn::Zero(d), probe);
    }
    const float largest = hn::GetLane(hn::MaxOfLanes(d, most)),
                not_finite = hn::GetLane(hn::SumOfLanes(d, probe));
    const bool usable = largest >= kLeast && not_finite == 0;
    to.scales[r] = largest / levels + not_finite;
    to.sums[r] = hn::GetLane(hn::SumOfLanes(d, sum));
    const auto up = hn::Set(d, usable ? levels / largest : 0.0f);
    for (int64_t i = 0; i < run; i += kLanes) {
      const auto scaled = usable ? hn::NearestInt(hn::Mul(load_f32(d, v + i), up)) : hn::Zero(I32());
      hn::StoreU(hn::DemoteTo(d16, scaled), d16, values + i);
    }
  }
  if (pairs) arrange_pairs(plain, n, to.values);
}

// A kind of run: kRun weights in integers, in the order of Int16Inputs, and what their sum is multiplied by; where
// kMinima, what is added times the run's inputs.
struct ScaleOfRun {
  float scale, minimum;
};

// Two f16 values side by side, at the beginning of at least eight bytes.
HWY_INLINE ScaleOfRun two_halves(const uint8_t* p) {
#if HWY_TARGET <= HWY_AVX2
  const hn::CappedTag<float, 4> d;
  const hn::Rebind<uint16_t, decltype(d)> bits;
  const hn::Rebind<hwy::float16_t, decltype(d)> d16;
  float out[4];
  hn::StoreU(hn::PromoteTo(d, hn::BitCast(d16, hn::LoadU(bits, reinterpret_cast<const uint16_t*>(p)))), d, out);
  return {out[0], out[1]};
#else
  return {half_at(p), half_at(p + 2)};
#endif
}

struct CodebookRun {
  hn::Vec<D8> low, high;
  const uint8_t* codes;
  const float* scales;
  static constexpr int64_t kRun = 64;
  static constexpr bool kMinima = false;
  CodebookRun(const uint8_t* low_bytes, const uint8_t* high_bytes, const uint8_t* row, const float* run_scales)
      : low(hn::LoadDup128(D8(), low_bytes)),
        high(hn::LoadDup128(D8(), high_bytes)),
        codes(row),
        scales(run_scales) {}
  HWY_INLINE ScaleOfRun scale(int64_t run) const { return {scales[run], 0}; }
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

HWY_INLINE V16 widen_u8(const uint8_t* p) {
  return hn::BitCast(D16(), hn::PromoteTo(hn::RebindToUnsigned<D16>(), hn::LoadU(H8(), p)));
}

// Sixteen bytes of nibbles: values 0 … 15 in the low ones, 16 … 31 in the high ones.
// (Q4_1: scale and minimum before them; Q4_0: the scale, and 8 is taken off each.)
template <bool kWithMinimum>
struct NibbleRun {
  const uint8_t* row;
  static constexpr int64_t kRun = 32, header = kWithMinimum ? 4 : 2, stride = header + 16;
  static constexpr bool kMinima = true;
  HWY_INLINE ScaleOfRun scale(int64_t run) const {
    const ScaleOfRun s = two_halves(row + run * stride);
    return kWithMinimum ? s : ScaleOfRun{s.scale, -8 * s.scale};
  }
  template <class Use>
  HWY_INLINE void weights(int64_t run, Use&& use) const {
    const auto mask = hn::Set(D16(), int16_t{15});
    for (int64_t i = 0; i < 16; i += kShorts) {
      const auto v = widen_u8(row + run * stride + header + i);
      use(i, hn::And(v, mask));
      use(16 + i, hn::ShiftRight<4>(v));
    }
  }
};

// Q4_K: runs 2p and 2p + 1 are the low and high nibbles of 32 bytes.
struct Q4KRun {
  const uint8_t* row;
  const float *scales, *minima;
  static constexpr int64_t kRun = 32;
  static constexpr bool kMinima = true;
  HWY_INLINE ScaleOfRun scale(int64_t run) const { return {scales[run], minima[run]}; }
  template <class Use>
  HWY_INLINE void weights(int64_t run, Use&& use) const {
    const uint8_t* q = row + run / 8 * 144 + 16 + run % 8 / 2 * 32;
    const auto mask = hn::Set(D16(), int16_t{15});
    for (int64_t i = 0; i < 32; i += kShorts) {
      const auto v = widen_u8(q + i);
      use(i, run % 2 == 0 ? hn::And(v, mask) : hn::ShiftRight<4>(v));
    }
  }
};

struct Q8Run {
  const uint8_t* row;
  static constexpr int64_t kRun = 32;
  static constexpr bool kMinima = false;
  HWY_INLINE ScaleOfRun scale(int64_t run) const { return two_halves(row + run * 34); }
  template <class Use>
  HWY_INLINE void weights(int64_t run, Use&& use) const {
    const hn::Rebind<int8_t, D16> di8;
    for (int64_t i = 0; i < 32; i += kShorts)
      use(i, hn::PromoteTo(D16(), hn::LoadU(di8, reinterpret_cast<const int8_t*>(row + run * 34 + 2 + i))));
  }
};

// Σ over runs of scale[run] * x.scales[run] * (integer sum) + minimum[run] * x.sums[run], for T input rows at once.
template <int T, class Run>
HWY_INLINE void dot_runs(const Run& row, int64_t runs, const Int16Inputs* x, float* sums) {
  hn::Vec<DF> acc[T];
  float minima[T] = {};
  for (int t = 0; t < T; ++t) acc[t] = hn::Zero(DF());
  for (int64_t r = 0; r < runs; ++r) {
    V32 sum[T];
    for (int t = 0; t < T; ++t) sum[t] = hn::Zero(D32());
    row.weights(r, [&](int64_t at, V16 w) HWY_ATTR {
      for (int t = 0; t < T; ++t) sum[t] = multiply_add(w, x[t].values + r * Run::kRun + at, sum[t]);
    });
    const ScaleOfRun s = row.scale(r);
    for (int t = 0; t < T; ++t) {
      acc[t] = hn::MulAdd(hn::ConvertTo(DF(), sum[t]), hn::Set(DF(), s.scale * x[t].scales[r]), acc[t]);
      if constexpr (Run::kMinima) minima[t] += s.minimum * x[t].sums[r];
    }
  }
  for (int t = 0; t < T; ++t) sums[t] = hn::GetLane(hn::SumOfLanes(DF(), acc[t])) + minima[t];
}

template <class Run>
void dot_all(const Run& row, int64_t runs, const Int16Inputs* x, int64_t count, float* sums) {
  int64_t t = 0;
  for (; t + 4 <= count; t += 4) dot_runs<4>(row, runs, x + t, sums + t);
  for (; t < count; ++t) dot_runs<1>(row, runs, x + t, sums + t);
}

// The next row's bytes on their way while this one is worked on.
HWY_INLINE void prefetch(const uint8_t* from, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) hwy::Prefetch(from + i);
}

// Scratch: 2 * runs floats.
void ggml_row(GgmlType type, const uint8_t* row, int64_t bytes, int64_t runs, const Int16Inputs* x, int64_t count,
              float* scratch, float* sums) {
  prefetch(row + 2 * bytes, bytes);
  if (type == GgmlType::kQ8_0) return dot_all(Q8Run{row}, runs, x, count, sums);
  if (type == GgmlType::kQ4_1) return dot_all(NibbleRun<true>{row}, runs, x, count, sums);
  if (type == GgmlType::kQ4_0) return dot_all(NibbleRun<false>{row}, runs, x, count, sums);
  const uint8_t* block = row;
  for (int64_t r = 0; r < runs; r += 8, block += 144) {
    const float d = half_at(block), dmin = half_at(block + 2);
    for (int i = 0; i < 8; ++i) {
      const ScaleMin s = scale_min(block + 4, i);
      scratch[r + i] = d * s.scale;
      scratch[runs + r + i] = -dmin * s.min;
    }
  }
  dot_all(Q4KRun{row, scratch, scratch + runs}, runs, x, count, sums);
}

void codebook_row(const uint8_t* low, const uint8_t* high, const uint8_t* codes, int64_t runs,
                  const float* scales, const Int16Inputs* x, int64_t count, float* sums) {
  prefetch(codes + 2 * 32 * runs, 32 * runs);
  dot_all(CodebookRun(low, high, codes, scales), runs, x, count, sums);
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::backend::cpu {
namespace {

HWY_EXPORT(prepare_inputs);
HWY_EXPORT(ggml_row);
HWY_EXPORT(codebook_row);

constexpr float kInputLevels = 16383;
constexpr int64_t kMostRows = 64;  // of weights that one chunk of work takes

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
  if (w.format->kind == quant::Kind::kCodebook4) return w.cols() % 64 == 0 && w.block % 64 == 0;
  const auto type = static_cast<GgmlType>(w.ggml_type);
  return w.format->kind == quant::Kind::kGgml && w.cols() % ggml_block(w.ggml_type).values == 0 &&
         (type == GgmlType::kQ4_0 || type == GgmlType::kQ4_1 || type == GgmlType::kQ8_0 ||
          type == GgmlType::kQ4_K);
}

void matvec_int16(Stream& stream, const Tensor& x, const quant::Weight& w, Tensor& y) {
  const int64_t rows = w.rows(), cols = w.cols(), count = x.shape().rows();
  const bool codebook = w.format->kind == quant::Kind::kCodebook4;
  const int64_t run = codebook ? 64 : 32, runs = cols / run;
  // Scratch: scales, sums and values of each input row, then one row in plain order.
  const int64_t row_floats = 2 * runs + (cols + 1) / 2;
  auto* scratch = reinterpret_cast<float*>(
      stream.scratch(Stream::kKernelSlot, static_cast<size_t>(count * row_floats + cols) * sizeof(float)));
  Int16Inputs inputs[kMatvecRows];
  auto* plain = reinterpret_cast<int16_t*>(scratch + count * row_floats);
  for (int64_t t = 0; t < count; ++t) {
    float* at = scratch + t * row_floats;
    inputs[t] = {reinterpret_cast<int16_t*>(at + 2 * runs), at, at + runs};
    HWY_DYNAMIC_DISPATCH(prepare_inputs)
    (x.raw() + t * cols * 2, cols, run, kInputLevels, codebook, plain, inputs[t]);
  }
  const int64_t grain = std::clamp<int64_t>((1 << 14) / std::max<int64_t>(cols, 1), 1, kMostRows);
  const auto* stored = reinterpret_cast<const uint8_t*>(codebook ? w.codes.raw() : w.blocks.raw());
  parallel_for(rows, grain, [&](int64_t begin, int64_t end) {
    std::vector<float> scales(static_cast<size_t>(2 * runs));
    float sums[kMatvecRows], results[kMatvecRows][kMostRows];
    const auto keep = [&](int64_t r) {
      for (int64_t t = 0; t < count; ++t) results[t][r - begin] = sums[t];
    };
    const auto write = [&] {
      for (int64_t t = 0; t < count; ++t)
        convert_values(kF32, reinterpret_cast<const std::byte*>(results[t]), end - begin, y.dtype(),
                       y.raw() + (t * rows + begin) * dtype_bytes(y.dtype()));
    };
    if (codebook) {
      const IntegerBook book(*w.format->codebook);
      const BlockScales absmax(w);
      for (int64_t r = begin; r < end; ++r) {
        for (int64_t i = 0; i < runs; ++i)
          scales[static_cast<size_t>(i)] = absmax[(r * cols + i * run) / w.block] * (1.0f / 8191.0f);
        HWY_DYNAMIC_DISPATCH(codebook_row)
        (book.low, book.high, stored + r * cols / 2, runs, scales.data(), inputs, count, sums);
        keep(r);
      }
      return write();
    }
    const GgmlBlock block = ggml_block(w.ggml_type);
    const int64_t row_bytes = cols / block.values * block.bytes;
    for (int64_t r = begin; r < end; ++r) {
      HWY_DYNAMIC_DISPATCH(ggml_row)
      (static_cast<GgmlType>(w.ggml_type), stored + w.ggml_row(r) * row_bytes, row_bytes, runs, inputs, count,
       scales.data(), sums);
      keep(r);
    }
    write();
  });
}

}  // namespace nibble::backend::cpu
#endif  // HWY_ONCE
