// Products of generation in bytes: codes of 4 or 8 bits times inputs of 8, summed in exact integers over each
// run of 32 and scaled once per run, for as many rows of weights at a time as a vector has 32-bit lanes. One
// input is multiplied as the rows lie; for several the codes of some rows are laid side by side first. Lane
// for lane both do the same operations, so an input has the same result alone and among others.
#include <hwy/cache_control.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "backend/cpu/kernels.h"
#include "backend/cpu/local_buffer.h"
#include "backend/cpu/simd_targets.h"
#include "base/parallel.h"

#ifndef NIBBLE_CPU_ROUNDED_PRODUCT
#define NIBBLE_CPU_ROUNDED_PRODUCT
namespace nibble::backend::cpu {
inline constexpr int64_t kByteRun = 32;
// x[t, i] ≈ values[t * cols + i] * scales[t * runs + i / 32]; sums: Σ x over each run.
struct ByteInputs {
  const int8_t* values;
  const float *scales, *sums;
  int64_t count, cols, runs;
  ByteInputs from(int64_t t) const {
    return {values + t * cols, scales + t * runs, sums + t * runs, count - t, cols, runs};
  }
};
inline constexpr int64_t kByteAhead = 4096;  // bytes of weights between what is worked on and what is fetched
}  // namespace nibble::backend::cpu
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/rounded_product.cpp"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway wants it:
#include "backend/cpu/ggml-inl.h"
#include "backend/cpu/integers-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

using Bytes = hn::CappedTag<uint8_t, 32>;
using SignedBytes = hn::RebindToSigned<Bytes>;
using Shorts = hn::Repartition<int16_t, Bytes>;
using Ints = hn::Repartition<int32_t, Bytes>;
using Words = hn::Repartition<uint32_t, Bytes>;
using Floats = hn::Repartition<float, Bytes>;
using VBytes = hn::Vec<Bytes>;
using VShorts = hn::Vec<Shorts>;
using VInts = hn::Vec<Ints>;
using VFloats = hn::Vec<Floats>;
constexpr int64_t kVector = HWY_MIN(HWY_LANES(uint8_t), 32);
constexpr int64_t kGroup = kVector / 4;  // rows of weights taken together
constexpr int64_t kWords = kByteRun / 4;

// Of each two neighbouring bytes the sum of their products: w 0 … 128, x signed. No sum leaves 16 bits.
HWY_INLINE VShorts multiply_bytes(VBytes w, hn::Vec<SignedBytes> x) {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
  return VShorts{_mm256_maddubs_epi16(w.raw, x.raw)};
#elif HWY_ARCH_X86
  return VShorts{_mm_maddubs_epi16(w.raw, x.raw)};
#else
  const auto codes = hn::BitCast(Shorts(), w), inputs = hn::BitCast(Shorts(), x);
  const auto even =
      hn::Mul(hn::And(codes, hn::Set(Shorts(), int16_t{0xFF})), hn::ShiftRight<8>(hn::ShiftLeft<8>(inputs)));
  return hn::Add(even, hn::Mul(hn::And(hn::ShiftRight<8>(codes), hn::Set(Shorts(), int16_t{0xFF})),
                               hn::ShiftRight<8>(inputs)));
#endif
}

// Of each two neighbours their sum.
HWY_INLINE VInts add_neighbours(VShorts v) {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
  return VInts{_mm256_madd_epi16(v.raw, _mm256_set1_epi16(1))};
#elif HWY_ARCH_X86
  return VInts{_mm_madd_epi16(v.raw, _mm_set1_epi16(1))};
#else
  const auto both = hn::BitCast(Ints(), v);
  return hn::Add(hn::ShiftRight<16>(hn::ShiftLeft<16>(both)), hn::ShiftRight<16>(both));
#endif
}

// Signed codes: |w| and x with w's sign.
HWY_INLINE VShorts multiply_signed(hn::Vec<SignedBytes> w, hn::Vec<SignedBytes> x) {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
  const hn::Vec<SignedBytes> turned{_mm256_sign_epi8(x.raw, w.raw)};
#elif HWY_ARCH_X86
  const hn::Vec<SignedBytes> turned{_mm_sign_epi8(x.raw, w.raw)};
#else
  const auto turned = hn::IfThenElse(hn::Lt(w, hn::Zero(SignedBytes())), hn::Neg(x), x);
#endif
  return multiply_bytes(hn::BitCast(Bytes(), hn::Abs(w)), turned);
}

// Four rows' 16 bytes as four vectors: word j of every row in the j-th.
struct FourWords {
  hn::Vec<hn::Full128<uint32_t>> at[4];
};
HWY_INLINE FourWords words_of_four(const uint8_t* const* rows, int64_t offset) {
  const hn::Full128<uint32_t> d;
  const hn::Full128<uint64_t> d64;
  const auto row = [&](int i) HWY_ATTR {
    return hn::BitCast(d, hn::LoadU(hn::Full128<uint8_t>(), rows[i] + offset));
  };
  const auto r0 = row(0), r1 = row(1), r2 = row(2), r3 = row(3);
  const auto a = hn::BitCast(d64, hn::InterleaveLower(d, r0, r1)),
             b = hn::BitCast(d64, hn::InterleaveLower(d, r2, r3)),
             c = hn::BitCast(d64, hn::InterleaveUpper(d, r0, r1)),
             e = hn::BitCast(d64, hn::InterleaveUpper(d, r2, r3));
  return {{hn::BitCast(d, hn::InterleaveLower(d64, a, b)), hn::BitCast(d, hn::InterleaveUpper(d64, a, b)),
           hn::BitCast(d, hn::InterleaveLower(d64, c, e)), hn::BitCast(d, hn::InterleaveUpper(d64, c, e))}};
}
// The same of a group's rows, as bytes.
struct GroupWords {
  VBytes at[4];
};
HWY_INLINE GroupWords words_of_group(const uint8_t* const* rows, int64_t offset) {
  const FourWords low = words_of_four(rows, offset);
#if HWY_MAX_BYTES >= 32
  const FourWords high = words_of_four(rows + 4, offset);
  const auto both = [&](int j) HWY_ATTR {
    return hn::BitCast(Bytes(), hn::Combine(Words(), high.at[j], low.at[j]));
  };
#else
  const auto both = [&](int j) HWY_ATTR { return hn::BitCast(Bytes(), low.at[j]); };
#endif
  return {{both(0), both(1), both(2), both(3)}};
}
HWY_INLINE VBytes low_codes(VBytes v) { return hn::And(v, hn::Set(Bytes(), uint8_t{15})); }
HWY_INLINE VBytes high_codes(VBytes v) {
  return low_codes(hn::BitCast(Bytes(), hn::ShiftRight<4>(hn::BitCast(Words(), v))));
}

// A group's scales of one run, and what is added times the run's inputs.
struct GroupScales {
  VFloats scale, minimum;
};
// Of blocks that begin with two f16 values (or with one, what follows being no matter).
HWY_INLINE GroupScales headers_of_group(const uint8_t* const* rows, int64_t offset) {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
  const auto four = [&](int first) HWY_ATTR {
    const auto header = [&](int i) {
      int32_t bits;
      std::memcpy(&bits, rows[first + i] + offset, 4);
      return bits;
    };
    return _mm_shuffle_epi8(_mm_set_epi32(header(3), header(2), header(1), header(0)),
                            _mm_set_epi8(15, 14, 11, 10, 7, 6, 3, 2, 13, 12, 9, 8, 5, 4, 1, 0));
  };
  const __m128i first = four(0), second = four(4);
  const hn::Rebind<hwy::float16_t, Floats> halves;
  const auto wide = [&](__m128i bits) HWY_ATTR {
    return hn::PromoteTo(Floats(), hn::BitCast(halves, hn::Vec<hn::Full128<uint16_t>>{bits}));
  };
  return {wide(_mm_unpacklo_epi64(first, second)), wide(_mm_unpackhi_epi64(first, second))};
#else
  HWY_ALIGN float scale[kGroup], minimum[kGroup];
  for (int64_t i = 0; i < kGroup; ++i) {
    scale[i] = half_at(rows[i] + offset);
    minimum[i] = half_at(rows[i] + offset + 2);
  }
  return {hn::Load(Floats(), scale), hn::Load(Floats(), minimum)};
#endif
}

// A kind of block. codes(): one row's run in order; words(): a group's run, word q of every row in the q-th
// vector of `to`.
// Q4_0, Q4_1: sixteen bytes, values 0 … 15 in the low nibbles and 16 … 31 in the high ones; before them the
// scale (8 is taken off each code), or scale and minimum.
template <bool kWithMinimum>
struct NibbleBlocks {
  static constexpr bool kSigned = false, kTable = false;
  static constexpr int64_t kHeader = kWithMinimum ? 4 : 2, kStride = kHeader + 16;
  static HWY_INLINE VBytes codes(const uint8_t* row, int64_t run) {
    const hn::Repartition<uint64_t, Bytes> quads;
    HWY_ALIGN static constexpr uint64_t kShifts[4] = {0, 0, 4, 4};
    const auto v = hn::BitCast(quads, hn::LoadDup128(Bytes(), row + run * kStride + kHeader));
    return low_codes(hn::BitCast(Bytes(), hn::Shr(v, hn::Load(quads, kShifts))));
  }
  static HWY_INLINE void words(const uint8_t* const* rows, int64_t run, uint8_t* to) {
    const GroupWords w = words_of_group(rows, run * kStride + kHeader);
    for (int j = 0; j < 4; ++j) {
      hn::Store(low_codes(w.at[j]), Bytes(), to + j * kVector);
      hn::Store(high_codes(w.at[j]), Bytes(), to + (4 + j) * kVector);
    }
  }
  static HWY_INLINE GroupScales scales(const uint8_t* const* rows, int64_t run, const float*) {
    GroupScales s = headers_of_group(rows, run * kStride);
    if constexpr (!kWithMinimum) s.minimum = hn::Mul(s.scale, hn::Set(Floats(), -8.0f));
    return s;
  }
};

struct Q8Blocks {
  static constexpr bool kSigned = true, kTable = false;
  static constexpr int64_t kStride = 34;
  static HWY_INLINE VBytes codes(const uint8_t* row, int64_t run) {
    return hn::LoadU(Bytes(), row + run * kStride + 2);
  }
  static HWY_INLINE void words(const uint8_t* const* rows, int64_t run, uint8_t* to) {
    for (int64_t half = 0; half < 2; ++half) {
      const GroupWords w = words_of_group(rows, run * kStride + 2 + 16 * half);
      for (int j = 0; j < 4; ++j) hn::Store(w.at[j], Bytes(), to + (4 * half + j) * kVector);
    }
  }
  static HWY_INLINE GroupScales scales(const uint8_t* const* rows, int64_t run, const float*) {
    return headers_of_group(rows, run * kStride);
  }
};

// Runs 2p and 2p + 1 are the low and high nibbles of 32 bytes; scales stand in a table made before.
struct Q4KBlocks {
  static constexpr bool kSigned = false, kTable = true;
  static constexpr int64_t kStride = 18;  // of 144 bytes for eight runs
  static int64_t offset(int64_t run) { return run / 8 * 144 + 16 + run % 8 / 2 * 32; }
  static HWY_INLINE VBytes codes(const uint8_t* row, int64_t run) {
    const auto v = hn::LoadU(Bytes(), row + offset(run));
    return run % 2 == 0 ? low_codes(v) : high_codes(v);
  }
  static HWY_INLINE void words(const uint8_t* const* rows, int64_t run, uint8_t* to) {
    for (int64_t half = 0; half < 2; ++half) {
      const GroupWords w = words_of_group(rows, offset(run) + 16 * half);
      for (int j = 0; j < 4; ++j)
        hn::Store(run % 2 == 0 ? low_codes(w.at[j]) : high_codes(w.at[j]), Bytes(),
                  to + (4 * half + j) * kVector);
    }
  }
  static HWY_INLINE GroupScales scales(const uint8_t* const*, int64_t run, const float* table) {
    return {hn::Load(Floats(), table + run * 2 * kGroup), hn::Load(Floats(), table + (run * 2 + 1) * kGroup)};
  }
  static void fill_table(const uint8_t* const* rows, int64_t runs, float* table) {
    for (int64_t i = 0; i < kGroup; ++i)
      for (int64_t run = 0; run < runs; ++run) {
        const uint8_t* block = rows[i] + run / 8 * 144;
        const ScaleMin s = scale_min(block + 4, static_cast<int>(run % 8));
        table[run * 2 * kGroup + i] = half_at(block) * s.scale;
        table[(run * 2 + 1) * kGroup + i] = -half_at(block + 2) * s.min;
      }
  }
};

// A run's integer sums of a group, added to those of the runs before.
HWY_INLINE VFloats add_scaled(VInts sums, VFloats scale, float input_scale, VFloats before) {
  return hn::MulAdd(hn::ConvertTo(Floats(), sums), hn::Mul(scale, hn::Set(Floats(), input_scale)), before);
}

HWY_INLINE void store_group(VFloats v, int64_t n, AnyFloats to) {
  if (HWY_LIKELY(n == kGroup))
    store_f32(Floats(), v, to);
  else
    store_part(Floats(), v, to, static_cast<size_t>(n));
}

// Fetches a run's share of `next`, what is read after this group, of as many bytes. A little at a time: rows
// are too short for the processor to see them coming, and many fetches at once wait for one another.
template <class Blocks>
HWY_INLINE void fetch_share(const uint8_t* next, int64_t run) {
  for (int64_t at = 0; at < kGroup * Blocks::kStride; at += 64)
    hwy::Prefetch(next + run * kGroup * Blocks::kStride + at);
}

#if HWY_MAX_BYTES >= 32
// The sum of each of eight vectors, in order. Products of 4-bit codes are added up in 16 bits: 32 of them at
// most reach 16 · 15 · 127.
HWY_INLINE VInts sums_of_eight(const VShorts& a, const VShorts& b, const VShorts& c, const VShorts& d,
                               const VShorts& e, const VShorts& f, const VShorts& g, const VShorts& h) {
  const hn::Repartition<uint64_t, Bytes> quads;
  const auto of_two = [](const VShorts& x, const VShorts& y) HWY_ATTR {
    return hn::BitCast(Words(),
                       hn::Add(hn::InterleaveLower(Shorts(), x, y), hn::InterleaveUpper(Shorts(), x, y)));
  };
  const auto of_four = [&](auto x, auto y) HWY_ATTR {
    return hn::BitCast(quads, hn::Add(hn::BitCast(Shorts(), hn::InterleaveLower(Words(), x, y)),
                                      hn::BitCast(Shorts(), hn::InterleaveUpper(Words(), x, y))));
  };
  const auto low = of_four(of_two(a, b), of_two(c, d)), high = of_four(of_two(e, f), of_two(g, h));
  const auto all = hn::Add(hn::BitCast(Shorts(), hn::InterleaveLower(quads, low, high)),
                           hn::BitCast(Shorts(), hn::InterleaveUpper(quads, low, high)));
  const hn::Half<Shorts> half;
  return hn::Add(hn::PromoteTo(Ints(), hn::LowerHalf(half, all)),
                 hn::PromoteTo(Ints(), hn::UpperHalf(half, all)));
}
// Those of 8-bit codes need 32.
HWY_INLINE VInts sums_of_eight(const VInts& a, const VInts& b, const VInts& c, const VInts& d, const VInts& e,
                               const VInts& f, const VInts& g, const VInts& h) {
  const hn::Repartition<uint64_t, Bytes> quads;
  const auto of_two = [&](const VInts& x, const VInts& y) HWY_ATTR {
    return hn::BitCast(quads, hn::Add(hn::InterleaveLower(Ints(), x, y), hn::InterleaveUpper(Ints(), x, y)));
  };
  const auto of_four = [&](auto x, auto y) HWY_ATTR {
    return hn::Add(hn::BitCast(Ints(), hn::InterleaveLower(quads, x, y)),
                   hn::BitCast(Ints(), hn::InterleaveUpper(quads, x, y)));
  };
  const auto low = of_four(of_two(a, b), of_two(c, d)), high = of_four(of_two(e, f), of_two(g, h));
  return hn::Add(hn::ConcatLowerLower(Ints(), high, low), hn::ConcatUpperUpper(Ints(), high, low));
}

template <class Blocks>
HWY_INLINE VFloats group_of_one(const uint8_t* const* rows, const ByteInputs& x, const float* table,
                                const uint8_t* next) {
  auto products = hn::Zero(Floats()), minima = products;
  for (int64_t run = 0; run < x.runs; ++run) {
    fetch_share<Blocks>(next, run);
    const auto inputs = hn::LoadU(SignedBytes(), x.values + run * kByteRun);
    const auto product = [&](int i) HWY_ATTR {
      const VBytes codes = Blocks::codes(rows[i], run);
      if constexpr (Blocks::kSigned)
        return add_neighbours(multiply_signed(hn::BitCast(SignedBytes(), codes), inputs));
      else
        return multiply_bytes(codes, inputs);
    };
    const VInts sums = sums_of_eight(product(0), product(1), product(2), product(3), product(4), product(5),
                                     product(6), product(7));
    const GroupScales s = Blocks::scales(rows, run, table);
    products = add_scaled(sums, s.scale, x.scales[run], products);
    if constexpr (!Blocks::kSigned) minima = hn::MulAdd(s.minimum, hn::Set(Floats(), x.sums[run]), minima);
  }
  return hn::Add(products, minima);
}
#endif

// N inputs beside a group whose codes and scales lie as lay_out() makes them. Sums are named: GCC keeps an
// array of them in memory. What the minima add comes after the products for the same reason, registers.
template <class Blocks, int N>
HWY_NOINLINE void group_of_several(const uint8_t* HWY_RESTRICT codes, const float* HWY_RESTRICT table,
                                   const ByteInputs& x, int64_t n, AnyFloats to, int64_t ld) {
  using Sum = std::conditional_t<Blocks::kSigned, VInts, VShorts>;
  using SumTag = std::conditional_t<Blocks::kSigned, Ints, Shorts>;
  const auto zero = hn::Zero(Floats());
  auto p0 = zero, p1 = zero, p2 = zero, p3 = zero, m0 = zero, m1 = zero, m2 = zero, m3 = zero;
  const int8_t* values = x.values;
  for (int64_t run = 0; run < x.runs; ++run) {
    Sum s0 = hn::Zero(SumTag()), s1 = s0, s2 = s0, s3 = s0;
#pragma GCC unroll 4
    for (int64_t q = 0; q < kWords; ++q, values += 4, codes += kVector) {
      const VBytes w = hn::Load(Bytes(), codes);
      const auto input = [&](int i, Sum& sum) HWY_ATTR {
        int32_t bits;
        std::memcpy(&bits, values + i * x.cols, 4);
        const auto word = hn::BitCast(SignedBytes(), hn::Set(Ints(), bits));
        if constexpr (Blocks::kSigned)
          sum = hn::Add(sum, add_neighbours(multiply_signed(hn::BitCast(SignedBytes(), w), word)));
        else
          sum = hn::Add(sum, multiply_bytes(w, word));
      };
      input(0, s0);
      if constexpr (N > 1) input(1, s1);
      if constexpr (N > 2) input(2, s2);
      if constexpr (N > 3) input(3, s3);
    }
    const auto scale = hn::Load(Floats(), table + run * 2 * kGroup);
    const auto scaled = [&](int i, const Sum& sum, VFloats& products) HWY_ATTR {
      if constexpr (Blocks::kSigned)
        products = add_scaled(sum, scale, x.scales[i * x.runs + run], products);
      else
        products = add_scaled(add_neighbours(sum), scale, x.scales[i * x.runs + run], products);
    };
    scaled(0, s0, p0);
    if constexpr (N > 1) scaled(1, s1, p1);
    if constexpr (N > 2) scaled(2, s2, p2);
    if constexpr (N > 3) scaled(3, s3, p3);
  }
  if constexpr (!Blocks::kSigned)
    for (int64_t run = 0; run < x.runs; ++run) {
      const auto minimum = hn::Load(Floats(), table + (run * 2 + 1) * kGroup);
      const auto with = [&](int i, VFloats& minima) HWY_ATTR {
        minima = hn::MulAdd(minimum, hn::Set(Floats(), x.sums[i * x.runs + run]), minima);
      };
      with(0, m0);
      if constexpr (N > 1) with(1, m1);
      if constexpr (N > 2) with(2, m2);
      if constexpr (N > 3) with(3, m3);
    }
  store_group(hn::Add(p0, m0), n, to);
  if constexpr (N > 1) store_group(hn::Add(p1, m1), n, to + ld);
  if constexpr (N > 2) store_group(hn::Add(p2, m2), n, to + 2 * ld);
  if constexpr (N > 3) store_group(hn::Add(p3, m3), n, to + 3 * ld);
}

// Codes and scales of a group: [run][word][row][4 codes], [run][scale or minimum][row].
template <class Blocks>
void lay_out(const uint8_t* const* rows, int64_t runs, const uint8_t* next, uint8_t* codes, float* table) {
  if constexpr (Blocks::kTable) Blocks::fill_table(rows, runs, table);
  for (int64_t run = 0; run < runs; ++run, codes += kWords * kVector) {
    fetch_share<Blocks>(next, run);
    Blocks::words(rows, run, codes);
    if constexpr (Blocks::kTable) continue;
    const GroupScales s = Blocks::scales(rows, run, nullptr);
    hn::Store(s.scale, Floats(), table + run * 2 * kGroup);
    hn::Store(s.minimum, Floats(), table + (run * 2 + 1) * kGroup);
  }
}

// to[t * ld + i]: `count` rows of weights, every input.
template <class Blocks>
void product_rows(const uint8_t* const* rows, int64_t count, int64_t bytes, const ByteInputs& x, AnyFloats to,
                  int64_t ld) {
  float* table = local_buffer(LocalSlot::kB, x.runs * (2 * kGroup + kWords * kVector / 4));
  auto* codes = reinterpret_cast<uint8_t*>(table + x.runs * 2 * kGroup);
  const int64_t ahead = (kByteAhead / bytes + kGroup - 1) / kGroup * kGroup;
  for (int64_t i = 0; i < count; i += kGroup) {
    const int64_t n = std::min(kGroup, count - i);
    const uint8_t* group[kGroup];  // beyond the last row that one again
    for (int64_t k = 0; k < kGroup; ++k) group[k] = rows[i + std::min(k, n - 1)];
    const uint8_t* next =
        rows[std::min(i + ahead, count - 1)];  // what follows the last one is another thread's
#if HWY_MAX_BYTES >= 32
    if (x.count == 1) {
      if constexpr (Blocks::kTable) Blocks::fill_table(group, x.runs, table);
      store_group(group_of_one<Blocks>(group, x, table, next), n, to + i);
      continue;
    }
#endif
    lay_out<Blocks>(group, x.runs, next, codes, table);
    int64_t t = 0;
    for (; t + 4 <= x.count; t += 4)
      group_of_several<Blocks, 4>(codes, table, x.from(t), n, to + (t * ld + i), ld);
    const auto last = to + (t * ld + i);
    if (x.count - t == 3) group_of_several<Blocks, 3>(codes, table, x.from(t), n, last, ld);
    if (x.count - t == 2) group_of_several<Blocks, 2>(codes, table, x.from(t), n, last, ld);
    if (x.count - t == 1) group_of_several<Blocks, 1>(codes, table, x.from(t), n, last, ld);
  }
}

void rounded_rows(GgmlType type, const uint8_t* const* rows, int64_t count, int64_t bytes,
                  const ByteInputs& x, AnyFloats to, int64_t ld) {
  switch (type) {
    case GgmlType::kQ4_0:
      return product_rows<NibbleBlocks<false>>(rows, count, bytes, x, to, ld);
    case GgmlType::kQ4_1:
      return product_rows<NibbleBlocks<true>>(rows, count, bytes, x, to, ld);
    case GgmlType::kQ4_K:
      return product_rows<Q4KBlocks>(rows, count, bytes, x, to, ld);
    default:
      return product_rows<Q8Blocks>(rows, count, bytes, x, to, ld);
  }
}

// A row of x (bf16).
void bytes_of_row(const BFloat16* x, int64_t runs, int8_t* values, float* scales, float* sums) {
  const F32 d;
  for (int64_t run = 0; run < runs; ++run, x += kByteRun, values += kByteRun) {
    auto sum = hn::Zero(d);
    for (int64_t i = 0; i < kByteRun; i += kLanes) sum = hn::Add(sum, load_f32(d, x + i));
    sums[run] = hn::GetLane(hn::SumOfLanes(d, sum));
    scales[run] = to_integers(x, kByteRun, 127, values);
  }
}

int64_t group_rows() { return kGroup; }

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::backend {
namespace cpu {
namespace {

HWY_EXPORT(rounded_rows);
HWY_EXPORT(bytes_of_row);
HWY_EXPORT(group_rows);

}  // namespace

}  // namespace cpu

bool has_rounded_product(const quant::Weight& w) {
  if (w.format->kind != quant::Kind::kGgml || w.shape.rank() != 2 ||
      w.cols() % ggml_block(w.ggml_type).values != 0)
    return false;
  const auto type = static_cast<GgmlType>(w.ggml_type);
  return type == GgmlType::kQ4_0 || type == GgmlType::kQ4_1 || type == GgmlType::kQ8_0 ||
         type == GgmlType::kQ4_K;
}

namespace cpu {

void rounded_product(Stream& stream, const Tensor& x, std::span<Matvec> products) {
  const int64_t count = x.shape().rows(), cols = x.shape().last(), runs = cols / kByteRun;
  require(x.dtype() == kBF16, "rounded_product", "expected bf16, got {}", dtype_name(x.dtype()));
  int64_t all = 0;
  for (const auto& [w, y] : products) {
    require(has_rounded_product(*w) && w->cols() == cols, "rounded_product",
            "x {} does not fit a {} weight {}", x.shape(), w->format->name, w->shape);
    require(y.shape().last() == w->rows() && y.shape().rows() == count, "rounded_product",
            "{} times {} into {}", x.shape(), w->shape, y.shape());
    (void)AnyFloats(y, "rounded_product");
    all += w->rows();
  }
  auto* scales = reinterpret_cast<float*>(
      stream.scratch(Stream::kKernelSlot, static_cast<size_t>(count * (2 * runs * 4 + cols))));
  float* sums = scales + count * runs;
  auto* values = reinterpret_cast<int8_t*>(sums + count * runs);
  parallel_for(count, 8, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) HWY_DYNAMIC_DISPATCH(bytes_of_row)
    (reinterpret_cast<const BFloat16*>(x.raw()) + t * cols, runs, values + t * cols, scales + t * runs,
     sums + t * runs);
  });
  const ByteInputs inputs{values, scales, sums, count, cols, runs};
  // One input: two chunks for each thread, since long stretches of memory are read faster than short ones in
  // turn.
  constexpr int64_t kMostRows = 256, kChunkRows = 32;
  const int64_t group = HWY_DYNAMIC_DISPATCH(group_rows)(),
                share = count == 1 ? std::min(kMostRows, all / (2 * threads())) : kChunkRows;
  parallel_for(all, std::max(group, (share + group - 1) / group * group), [&](int64_t begin, int64_t end) {
    int64_t first = 0;  // of the rows of all weights the product's first
    for (const auto& [w, y] : products) {
      const int64_t from = std::max(begin - first, int64_t{0}), until = std::min(end - first, w->rows());
      first += w->rows();
      if (from >= until) continue;
      const GgmlBlock block = ggml_block(w->ggml_type);
      const int64_t row_bytes = cols / block.values * block.bytes;
      const auto* blocks = reinterpret_cast<const uint8_t*>(w->blocks.raw());
      const uint8_t* rows[kMostRows];
      for (int64_t i = from; i < until; ++i)
        rows[i - from] = blocks + (w->interleaved_heads == 0 ? i : w->ggml_row(i)) * row_bytes;
      HWY_DYNAMIC_DISPATCH(rounded_rows)
      (static_cast<GgmlType>(w->ggml_type), rows, until - from, row_bytes, inputs,
       AnyFloats(y, "rounded_product") + from, w->rows());
    }
  });
}

}  // namespace cpu
}  // namespace nibble::backend
#endif  // HWY_ONCE
