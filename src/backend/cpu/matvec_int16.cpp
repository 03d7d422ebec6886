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
// Rows of inputs, ready for products: x[t, i] ≈ values[t * stride + i] * scales[run * count + t], run = i /
// (its length); sums[run * count + t] is Σ x over the run. Within a run values stand as the kernel wants
// them.
struct Int16Inputs {
  const int16_t* values;
  int64_t stride;
  const float *scales, *sums;
  int64_t count;  // of all rows, also in inputs from() one of them on
  Int16Inputs from(int64_t t) const { return {values + t * stride, stride, scales + t, sums + t, count}; }
};
enum class InputOrder : uint8_t {
  kPlain,
  kPairs,    // as the code books' shuffles deliver weights
  kBytes,    // the run's low bytes, then its high ones: x = 256 · high + low, both signed
  kEvenOdd,  // of as many values as a vector has bytes those at even places, then the others
};
inline constexpr int64_t kAhead = 4096;  // bytes of weights between what is worked on and what is fetched
}  // namespace nibble::backend::cpu
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/matvec_int16.cpp"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway wants it:
#include "backend/cpu/ggml-inl.h"
#include "backend/cpu/integers-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

using D8 = hn::CappedTag<uint8_t, 32>;
using D16 = hn::Repartition<int16_t, D8>;
using D32 = hn::Repartition<int32_t, D8>;
using DF = hn::Repartition<float, D8>;
constexpr int64_t kBytes = HWY_MIN(HWY_LANES(uint8_t), 32);
constexpr int64_t kShorts = kBytes / 2;
constexpr int64_t kSplitRun = 32;  // values whose low and high bytes stand apart
using V8 = hn::Vec<D8>;
using V16 = hn::Vec<D16>;
using V32 = hn::Vec<D32>;

// sum + products of weights that a run hands on and the run's inputs from `at`; which 32-bit lane takes which
// product is the target's business, the total is exact.
HWY_INLINE V32 multiply_add(V16 w, const int16_t* inputs, int64_t at, V32 sum) {
  auto rest = hn::Zero(D32());
  sum = hn::ReorderWidenMulAccumulate(D32(), w, hn::LoadU(D16(), inputs + at), sum, rest);
  return hn::Add(sum, rest);
}

#if HWY_ARCH_X86
// kBytes codes of 0 … 15, times the low and the high bytes of inputs: fewer instructions than widening the
// codes takes, and the same exact sum.
HWY_INLINE V32 multiply_add(V8 w, const int16_t* inputs, int64_t at, V32 sum) {
  const auto *low = reinterpret_cast<const int8_t*>(inputs) + at, *high = low + kSplitRun;
#if HWY_TARGET <= HWY_AVX2
  const auto bytes = [](const int8_t* p)
                         HWY_ATTR { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); };
  const __m256i of_low = _mm256_madd_epi16(_mm256_maddubs_epi16(w.raw, bytes(low)), _mm256_set1_epi16(1)),
                of_high = _mm256_madd_epi16(_mm256_maddubs_epi16(w.raw, bytes(high)), _mm256_set1_epi16(256));
#else
  const auto bytes = [](const int8_t* p)
                         HWY_ATTR { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); };
  const __m128i of_low = _mm_madd_epi16(_mm_maddubs_epi16(w.raw, bytes(low)), _mm_set1_epi16(1)),
                of_high = _mm_madd_epi16(_mm_maddubs_epi16(w.raw, bytes(high)), _mm_set1_epi16(256));
#endif
  return hn::Add(sum, hn::Add(V32{of_low}, V32{of_high}));
}
#endif

void arrange_bytes(const int16_t* from, int64_t n, int16_t* to) {
  const hn::Rebind<int8_t, D16> bytes;
  auto* out = reinterpret_cast<int8_t*>(to);
  for (int64_t run = 0; run < n; run += kSplitRun, out += 2 * kSplitRun)
    for (int64_t i = 0; i < kSplitRun; i += kShorts) {
      const auto v = hn::LoadU(D16(), from + run + i), low = hn::ShiftRight<8>(hn::ShiftLeft<8>(v));
      hn::StoreU(hn::DemoteTo(bytes, low), bytes, out + i);
      hn::StoreU(hn::DemoteTo(bytes, hn::ShiftRight<8>(hn::Sub(v, low))), bytes, out + kSplitRun + i);
    }
}

void arrange_even_odd(const int16_t* from, int64_t n, int16_t* to) {
  for (int64_t i = 0; i < n; i += kBytes) {
    const auto first = hn::LoadU(D16(), from + i), second = hn::LoadU(D16(), from + i + kShorts);
    hn::StoreU(hn::ConcatEven(D16(), second, first), D16(), to + i);
    hn::StoreU(hn::ConcatOdd(D16(), second, first), D16(), to + i + kShorts);
  }
}

// kBytes codes of 0 … 15 to `use`: as they are, or as 16-bit integers. Either way a 32-bit lane of the sums
// gets the products of the same four, so that one row of inputs has the same result alone and among others.
template <InputOrder kOrder, class Use>
HWY_INLINE void hand_on(int64_t at, V8 codes, Use&& use) {
  if constexpr (kOrder == InputOrder::kBytes) {
    use(at, codes);
  } else {
    const auto two = hn::BitCast(D16(), codes);
    use(at, hn::And(two, hn::Set(D16(), int16_t{0xFF})));
    use(at + kShorts, hn::ShiftRight<8>(two));
  }
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
void prepare_inputs(const std::byte* x, int64_t n, int64_t run, InputOrder order, int16_t* plain,
                    int16_t* to_values, float* to_scales, float* to_sums, int64_t apart) {
  const F32 d;
  const auto* v = reinterpret_cast<const BFloat16*>(x);
  int16_t* values = order == InputOrder::kPlain ? to_values : plain;
  for (int64_t r = 0; r < n / run; ++r, v += run, values += run) {
    auto sum = hn::Zero(d);
    for (int64_t i = 0; i < run; i += kLanes) sum = hn::Add(sum, load_f32(d, v + i));
    to_sums[r * apart] = hn::GetLane(hn::SumOfLanes(d, sum));
    to_scales[r * apart] = to_integers(v, nullptr, run, values);
  }
  if (order == InputOrder::kPairs) arrange_pairs(plain, n, to_values);
  if (order == InputOrder::kBytes) arrange_bytes(plain, n, to_values);
  if (order == InputOrder::kEvenOdd) arrange_even_odd(plain, n, to_values);
}

// A kind of run: kRun weights in integers, in the order of Int16Inputs, and what their sum is multiplied by;
// where kMinima, what is added times the run's inputs.
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
  hn::StoreU(hn::PromoteTo(d, hn::BitCast(d16, hn::LoadU(bits, reinterpret_cast<const uint16_t*>(p)))), d,
             out);
  return {out[0], out[1]};
#else
  return {half_at(p), half_at(p + 2)};
#endif
}

// Scales and minima of one run in four rows of weights.
using D4 = hn::CappedTag<float, 4>;
struct ScalesOfFour {
  hn::Vec<D4> scale, minimum;
};
template <class Run>
HWY_INLINE ScalesOfFour scales_one_by_one(const Run* rows, int64_t run) {
  HWY_ALIGN float scale[4], minimum[4];
  for (int i = 0; i < 4; ++i) {
    const ScaleOfRun s = rows[i].scale(run);
    scale[i] = s.scale;
    minimum[i] = s.minimum;
  }
  return {hn::Load(D4(), scale), hn::Load(D4(), minimum)};
}
// Of blocks that begin with two f16 values (or with one, what follows being no matter).
template <class Run>
HWY_INLINE ScalesOfFour header_of_four(const Run* rows, int64_t offset) {
#if HWY_TARGET <= HWY_AVX2 && HWY_ARCH_X86
  const auto header = [&](int i) {
    int32_t bits;
    std::memcpy(&bits, rows[i].row + offset, 4);
    return bits;
  };
  alignas(16) static constexpr uint8_t kScalesFirst[16] = {0, 1, 4, 5, 8,  9,  12, 13,
                                                           2, 3, 6, 7, 10, 11, 14, 15};
  const hn::CappedTag<uint8_t, 16> bytes;
  const hn::Vec<decltype(bytes)> headers{_mm_set_epi32(header(3), header(2), header(1), header(0))};
  const auto sorted = hn::TableLookupBytes(headers, hn::Load(bytes, kScalesFirst));
  const hn::CappedTag<float, 8> d8;
  const hn::Rebind<hwy::float16_t, decltype(d8)> d16;
  const auto values = hn::PromoteTo(d8, hn::BitCast(d16, sorted));
  return {hn::LowerHalf(D4(), values), hn::UpperHalf(D4(), values)};
#else
  HWY_ALIGN float scale[4], minimum[4];
  for (int i = 0; i < 4; ++i) {
    scale[i] = half_at(rows[i].row + offset);
    minimum[i] = half_at(rows[i].row + offset + 2);
  }
  return {hn::Load(D4(), scale), hn::Load(D4(), minimum)};
#endif
}

struct CodebookRun {
  hn::Vec<D8> low, high;
  const uint8_t* codes;
  const float* scales;
  static constexpr int64_t kRun = 64;
  static constexpr bool kMinima = false;
  CodebookRun(const uint8_t* low_bytes, const uint8_t* high_bytes, const uint8_t* row,
              const float* run_scales)
      : low(hn::LoadDup128(D8(), low_bytes)),
        high(hn::LoadDup128(D8(), high_bytes)),
        codes(row),
        scales(run_scales) {}
  HWY_INLINE ScaleOfRun scale(int64_t run) const { return {scales[run], 0}; }
  static HWY_INLINE ScalesOfFour scales_of_four(const CodebookRun* rows, int64_t run) {
    return scales_one_by_one(rows, run);
  }
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

// Sixteen bytes of nibbles: values 0 … 15 in the low ones, 16 … 31 in the high ones.
// (Q4_1: scale and minimum before them; Q4_0: the scale, and 8 is taken off each.)
template <bool kWithMinimum, InputOrder kOrder>
struct NibbleRun {
  const uint8_t* row;
  static constexpr int64_t kRun = 32, header = kWithMinimum ? 4 : 2, stride = header + 16;
  static constexpr bool kMinima = true;
  HWY_INLINE ScaleOfRun scale(int64_t run) const {
    const ScaleOfRun s = two_halves(row + run * stride);
    return kWithMinimum ? s : ScaleOfRun{s.scale, -8 * s.scale};
  }
  static HWY_INLINE ScalesOfFour scales_of_four(const NibbleRun* rows, int64_t run) {
    ScalesOfFour s = header_of_four(rows, run * stride);
    if (!kWithMinimum) s.minimum = hn::Mul(s.scale, hn::Set(D4(), -8.0f));
    return s;
  }
  template <class Use>
  HWY_INLINE void weights(int64_t run, Use&& use) const {
    const auto mask = hn::Set(D8(), uint8_t{15});
    const hn::Repartition<uint64_t, D8> halves;
    const auto v = hn::BitCast(halves, hn::LoadDup128(D8(), row + run * stride + header));
    if constexpr (kBytes == 32) {
      alignas(32) static constexpr uint64_t kShifts[4] = {0, 0, 4, 4};
      hand_on<kOrder>(0, hn::And(hn::BitCast(D8(), hn::Shr(v, hn::Load(halves, kShifts))), mask), use);
    } else {
      hand_on<kOrder>(0, hn::And(hn::BitCast(D8(), v), mask), use);
      hand_on<kOrder>(16, hn::And(hn::BitCast(D8(), hn::ShiftRight<4>(v)), mask), use);
    }
  }
};

// Q4_K: runs 2p and 2p + 1 are the low and high nibbles of 32 bytes.
template <InputOrder kOrder>
struct Q4KRun {
  const uint8_t* row;
  const float *scales, *minima;
  static constexpr int64_t kRun = 32;
  static constexpr bool kMinima = true;
  HWY_INLINE ScaleOfRun scale(int64_t run) const { return {scales[run], minima[run]}; }
  static HWY_INLINE ScalesOfFour scales_of_four(const Q4KRun* rows, int64_t run) {
    return scales_one_by_one(rows, run);
  }
  template <class Use>
  HWY_INLINE void weights(int64_t run, Use&& use) const {
    const uint8_t* q = row + run / 8 * 144 + 16 + run % 8 / 2 * 32;
    const auto mask = hn::Set(D8(), uint8_t{15});
    for (int64_t i = 0; i < 32; i += kBytes) {
      const auto v = hn::LoadU(D8(), q + i);
      const auto upper = hn::BitCast(D8(), hn::ShiftRight<4>(hn::BitCast(D16(), v)));
      hand_on<kOrder>(i, hn::And(run % 2 == 0 ? v : upper, mask), use);
    }
  }
};

struct Q8Run {
  const uint8_t* row;
  static constexpr int64_t kRun = 32;
  static constexpr bool kMinima = false;
  HWY_INLINE ScaleOfRun scale(int64_t run) const { return two_halves(row + run * 34); }
  static HWY_INLINE ScalesOfFour scales_of_four(const Q8Run* rows, int64_t run) {
    return header_of_four(rows, run * 34);
  }
  template <class Use>
  HWY_INLINE void weights(int64_t run, Use&& use) const {
    const hn::Rebind<int8_t, D16> di8;
    for (int64_t i = 0; i < 32; i += kShorts)
      use(i, hn::PromoteTo(D16(), hn::LoadU(di8, reinterpret_cast<const int8_t*>(row + run * 34 + 2 + i))));
  }
};

// The product of a row of weights and a row of inputs is
//   Σ over runs of (scale[run] · x.scales[run]) · (integer sum) + minimum[run] · x.sums[run]
// in the same steps however many rows of either are taken together. Their sums stand in arrays that only
// constants index, so that they stay in registers.

// Four rows of weights, one of inputs.
template <class Run, size_t... I>
HWY_INLINE void dot_four_rows(const Run* rows, int64_t runs, const Int16Inputs& x, float* sums,
                              std::index_sequence<I...>) {
  hn::Vec<DF> acc[4] = {(static_cast<void>(I), hn::Zero(DF()))...};
  auto minima = hn::Zero(D4());
  for (int64_t r = 0; r < runs; ++r) {
    V32 sum[4] = {(static_cast<void>(I), hn::Zero(D32()))...};
    const int16_t* values = x.values + r * Run::kRun;
    (rows[I].weights(r, [&](int64_t at, auto w) HWY_ATTR { sum[I] = multiply_add(w, values, at, sum[I]); }),
     ...);
    const ScalesOfFour s = Run::scales_of_four(rows, r);
    HWY_ALIGN float scale[4];
    hn::Store(hn::Mul(s.scale, hn::Set(D4(), x.scales[r * x.count])), D4(), scale);
    ((acc[I] = hn::MulAdd(hn::ConvertTo(DF(), sum[I]), hn::Set(DF(), scale[I]), acc[I])), ...);
    if constexpr (Run::kMinima) minima = hn::MulAdd(s.minimum, hn::Set(D4(), x.sums[r * x.count]), minima);
  }
  HWY_ALIGN float least[4];
  hn::Store(minima, D4(), least);
  ((sums[I] = hn::GetLane(hn::SumOfLanes(DF(), acc[I])) + least[I]), ...);
}

// One row of weights, as many of inputs as there are I, from x on.
template <class Run, size_t... I>
HWY_INLINE void dot_inputs(const Run& row, int64_t runs, const Int16Inputs& x, float* sums, int64_t ld,
                           std::index_sequence<I...>) {
  constexpr size_t kCount = sizeof...(I);
  using D = hn::CappedTag<float, kCount>;
  constexpr size_t kParts = kCount / HWY_MIN(kCount, HWY_LANES(float));
  const size_t lanes = hn::Lanes(D());
  hn::Vec<DF> acc[kCount] = {(static_cast<void>(I), hn::Zero(DF()))...};
  HWY_ALIGN float minima[kCount] = {}, scale[kCount];
  for (int64_t r = 0; r < runs; ++r) {
    V32 sum[kCount] = {(static_cast<void>(I), hn::Zero(D32()))...};
    const int16_t* values = x.values + r * Run::kRun;
    row.weights(r, [&](int64_t at, auto w) HWY_ATTR {
      ((sum[I] = multiply_add(w, values + static_cast<int64_t>(I) * x.stride, at, sum[I])), ...);
    });
    const ScaleOfRun s = row.scale(r);
    for (size_t part = 0; part < kParts; ++part) {
      const size_t at = part * lanes;
      hn::Store(hn::Mul(hn::Set(D(), s.scale), hn::LoadU(D(), x.scales + r * x.count + at)), D(), scale + at);
      if constexpr (Run::kMinima)
        hn::Store(hn::MulAdd(hn::Set(D(), s.minimum), hn::LoadU(D(), x.sums + r * x.count + at),
                             hn::Load(D(), minima + at)),
                  D(), minima + at);
    }
    ((acc[I] = hn::MulAdd(hn::ConvertTo(DF(), sum[I]), hn::Set(DF(), scale[I]), acc[I])), ...);
  }
  ((sums[static_cast<int64_t>(I) * ld] = hn::GetLane(hn::SumOfLanes(DF(), acc[I])) + minima[I]), ...);
}

// sums[t * ld + i] of `count` rows of weights, given by row_at(i), and every row of inputs.
template <class RowAt>
HWY_INLINE void dot_rows(RowAt&& row_at, int64_t count, int64_t runs, const Int16Inputs& x, float* sums,
                         int64_t ld) {
  using Run = decltype(row_at(int64_t{0}));
  int64_t i = 0;
  if (x.count == 1)
    for (; i + 4 <= count; i += 4) {
      const Run rows[4] = {row_at(i), row_at(i + 1), row_at(i + 2), row_at(i + 3)};
      dot_four_rows(rows, runs, x, sums + i, std::make_index_sequence<4>());
    }
  for (; i < count; ++i) {
    const Run row = row_at(i);
    int64_t t = 0;
    for (; t + 8 <= x.count; t += 8)
      dot_inputs(row, runs, x.from(t), sums + t * ld + i, ld, std::make_index_sequence<8>());
    for (; t + 4 <= x.count; t += 4)
      dot_inputs(row, runs, x.from(t), sums + t * ld + i, ld, std::make_index_sequence<4>());
    for (; t < x.count; ++t)
      dot_inputs(row, runs, x.from(t), sums + t * ld + i, ld, std::make_index_sequence<1>());
  }
}

// How many rows of so many bytes lie between the row that is worked on and the one that is fetched.
HWY_INLINE int64_t rows_ahead(int64_t bytes) { return (kAhead + bytes - 1) / bytes; }

HWY_INLINE void prefetch(const uint8_t* from, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) hwy::Prefetch(from + i);
}

// Codes of four bits in an order of inputs. scratch: 2 · runs floats for each of the rows.
template <InputOrder kOrder, class At>
HWY_INLINE void nibble_rows(GgmlType type, At&& at, int64_t count, int64_t runs, const Int16Inputs& x,
                            float* scratch, float* sums, int64_t ld) {
  if (type == GgmlType::kQ4_1)
    return dot_rows([&](int64_t i) HWY_ATTR { return NibbleRun<true, kOrder>{at(i)}; }, count, runs, x, sums,
                    ld);
  if (type == GgmlType::kQ4_0)
    return dot_rows([&](int64_t i) HWY_ATTR { return NibbleRun<false, kOrder>{at(i)}; }, count, runs, x, sums,
                    ld);
  dot_rows(
      [&](int64_t i) HWY_ATTR {
        float *scales = scratch + i * 2 * runs, *minima = scales + runs;
        const uint8_t *row = at(i), *block = row;
        for (int64_t r = 0; r < runs; r += 8, block += 144) {
          const float d = half_at(block), dmin = half_at(block + 2);
          for (int k = 0; k < 8; ++k) {
            const ScaleMin s = scale_min(block + 4, k);
            scales[r + k] = d * s.scale;
            minima[r + k] = -dmin * s.min;
          }
        }
        return Q4KRun<kOrder>{row, scales, minima};
      },
      count, runs, x, sums, ld);
}

void ggml_rows(GgmlType type, InputOrder order, const uint8_t* const* rows, int64_t count, int64_t bytes,
               int64_t runs, const Int16Inputs& x, float* scratch, float* sums, int64_t ld) {
  const int64_t ahead = rows_ahead(bytes);
  const auto at = [&](int64_t i) {
    if (i + ahead < count) prefetch(rows[i + ahead], bytes);  // what follows is another thread's
    return rows[i];
  };
  if (type == GgmlType::kQ8_0)
    return dot_rows([&](int64_t i) HWY_ATTR { return Q8Run{at(i)}; }, count, runs, x, sums, ld);
#if HWY_ARCH_X86
  if (order == InputOrder::kBytes)
    return nibble_rows<InputOrder::kBytes>(type, at, count, runs, x, scratch, sums, ld);
#endif
  nibble_rows<InputOrder::kEvenOdd>(type, at, count, runs, x, scratch, sums, ld);
}

// scales: runs floats for each of the rows, whose codes follow one another.
void codebook_rows(const uint8_t* low, const uint8_t* high, const uint8_t* codes, int64_t count, int64_t runs,
                   const float* scales, const Int16Inputs& x, float* sums, int64_t ld) {
  const int64_t ahead = rows_ahead(32 * runs);
  dot_rows(
      [&](int64_t i) HWY_ATTR {
        if (i + ahead < count) prefetch(codes + (i + ahead) * 32 * runs, 32 * runs);
        return CodebookRun(low, high, codes + i * 32 * runs, scales + i * runs);
      },
      count, runs, x, sums, ld);
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::backend::cpu {
namespace {

HWY_EXPORT(prepare_inputs);
HWY_EXPORT(ggml_rows);
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
  // Scratch: values of each input row, one row in plain order, scales and sums.
  auto* values = reinterpret_cast<int16_t*>(stream.scratch(
      Stream::kKernelSlot, static_cast<size_t>((count + 1) * cols * 2 + 2 * count * runs * 4)));
  auto* scales = reinterpret_cast<float*>(values + (count + 1) * cols);
  float* sums = scales + count * runs;
  // With several rows of inputs codes are widened once for all of them, which is less than two products each.
  const InputOrder order = codebook                                                ? InputOrder::kPairs
                           : w.ggml_type == static_cast<uint32_t>(GgmlType::kQ8_0) ? InputOrder::kPlain
                           : HWY_ARCH_X86 && count == 1                            ? InputOrder::kBytes
                                                                                   : InputOrder::kEvenOdd;
  for (int64_t t = 0; t < count; ++t) HWY_DYNAMIC_DISPATCH(prepare_inputs)
  (x.raw() + t * cols * 2, cols, run, order, values + count * cols, values + t * cols, scales + t, sums + t,
   count);
  const Int16Inputs inputs{values, cols, scales, sums, count};
  // Two chunks for each thread: long stretches of memory are read faster than short ones in turn.
  const int64_t grain = std::clamp<int64_t>((rows / (2 * threads()) + 3) / 4 * 4, 4, kMostRows);
  const auto* stored = reinterpret_cast<const uint8_t*>(codebook ? w.codes.raw() : w.blocks.raw());
  const GgmlBlock block = codebook ? GgmlBlock{} : ggml_block(w.ggml_type);
  parallel_for(rows, grain, [&](int64_t begin, int64_t end) {
    const int64_t n = end - begin;
    float results[kMatvecRows * kMostRows];
    std::vector<float> row_scales;
    if (codebook) {
      const IntegerBook book(*w.format->codebook);
      const BlockScales absmax(w);
      row_scales.resize(static_cast<size_t>(n * runs));
      for (int64_t i = 0; i < n * runs; ++i)
        row_scales[static_cast<size_t>(i)] = absmax[(begin * cols + i * run) / w.block] * (1.0f / 8191.0f);
      HWY_DYNAMIC_DISPATCH(codebook_rows)
      (book.low, book.high, stored + begin * cols / 2, n, runs, row_scales.data(), inputs, results,
       kMostRows);
    } else {
      const auto type = static_cast<GgmlType>(w.ggml_type);
      const int64_t row_bytes = cols / block.values * block.bytes;
      const uint8_t* at[kMostRows];
      for (int64_t i = 0; i < n; ++i) at[i] = stored + w.ggml_row(begin + i) * row_bytes;
      if (type == GgmlType::kQ4_K) row_scales.resize(static_cast<size_t>(2 * n * runs));
      HWY_DYNAMIC_DISPATCH(ggml_rows)
      (type, order, at, n, row_bytes, runs, inputs, row_scales.data(), results, kMostRows);
    }
    for (int64_t t = 0; t < count; ++t)
      convert_values(kF32, reinterpret_cast<const std::byte*>(results + t * kMostRows), n, y.dtype(),
                     y.raw() + (t * rows + begin) * dtype_bytes(y.dtype()));
  });
}

}  // namespace nibble::backend::cpu
#endif  // HWY_ONCE
