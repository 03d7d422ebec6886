// Products of generation in bytes: codes of 4 or 8 bits times inputs of 8, summed in exact integers over each
// run of 32 and scaled once per run, for as many rows of weights at a time as a vector has 32-bit lanes. They
// lie side by side (RowGroups), so that memory is read in one stream. A few inputs are multiplied as the
// codes come; for more a group is laid out once. Lane for lane both do the same operations, so an input has
// the same result alone and among others.
#include <hwy/cache_control.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>

#include "backend/cpu/gemm_step.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/local_buffer.h"
#include "backend/cpu/row_groups.h"
#include "backend/cpu/simd_targets.h"
#include "base/parallel.h"

#ifndef NIBBLE_CPU_ROUNDED_PRODUCT
#define NIBBLE_CPU_ROUNDED_PRODUCT
namespace nibble::backend::cpu {
inline constexpr int64_t kByteRun = 32;
inline constexpr int64_t kFewInputs = 16;
// Inputs in blocks of as many as are multiplied together (block_of). Of one block: values [run][input][32],
// the others [run][input]. x ≈ values · scales; sums: Σ x, offsets: -128 Σ values (null where no
// codes are signed).
struct ByteInputs {
  int8_t* values;
  float *scales, *sums;
  int32_t* offsets;
  int64_t count, runs;
  ByteInputs from(int64_t t) const {  // the beginning of a block
    const int64_t n = t * runs;
    return {values + n * kByteRun,
            scales + n,
            sums + n,
            offsets == nullptr ? nullptr : offsets + n,
            count - t,
            runs};
  }
};
// Inputs of the next block where so many are left.
inline int64_t block_of(int64_t left, int64_t most) {
  return std::min(most, static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(left))));
}
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

using Bytes = hn::CappedTag<uint8_t, 64>;
using SignedBytes = hn::RebindToSigned<Bytes>;
using Shorts = hn::Repartition<int16_t, Bytes>;
using Ints = hn::Repartition<int32_t, Bytes>;
using Words = hn::Repartition<uint32_t, Bytes>;
using Floats = hn::Repartition<float, Bytes>;
using VBytes = hn::Vec<Bytes>;
using VShorts = hn::Vec<Shorts>;
using VInts = hn::Vec<Ints>;
using VFloats = hn::Vec<Floats>;
constexpr int64_t kVector = HWY_MIN(HWY_LANES(uint8_t), 64);
constexpr int64_t kGroup = kVector / 4;  // rows of weights taken together
constexpr int64_t kWords = kByteRun / 4;
constexpr int64_t kMostInputs = HWY_TARGET == HWY_AVX3 ? 8 : 4;  // whose sums have registers

// Of each two neighbouring bytes the sum of their products: w 0 … 128, x signed. No sum leaves 16 bits.
HWY_INLINE VShorts multiply_bytes(VBytes w, hn::Vec<SignedBytes> x) {
#if HWY_TARGET == HWY_AVX3
  return VShorts{_mm512_maddubs_epi16(w.raw, x.raw)};
#elif HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
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
#if HWY_TARGET == HWY_AVX3
  return VInts{_mm512_madd_epi16(v.raw, _mm512_set1_epi16(1))};
#elif HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
  return VInts{_mm256_madd_epi16(v.raw, _mm256_set1_epi16(1))};
#elif HWY_ARCH_X86
  return VInts{_mm_madd_epi16(v.raw, _mm_set1_epi16(1))};
#else
  const auto both = hn::BitCast(Ints(), v);
  return hn::Add(hn::ShiftRight<16>(hn::ShiftLeft<16>(both)), hn::ShiftRight<16>(both));
#endif
}

// x with the sign of w.
HWY_INLINE hn::Vec<SignedBytes> turned(hn::Vec<SignedBytes> w, hn::Vec<SignedBytes> x) {
#if HWY_TARGET == HWY_AVX3
  return hn::Vec<SignedBytes>{
      _mm512_mask_sub_epi8(x.raw, _mm512_movepi8_mask(w.raw), _mm512_setzero_si512(), x.raw)};
#elif HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
  return hn::Vec<SignedBytes>{_mm256_sign_epi8(x.raw, w.raw)};
#elif HWY_ARCH_X86
  return hn::Vec<SignedBytes>{_mm_sign_epi8(x.raw, w.raw)};
#else
  return hn::IfThenElse(hn::Lt(w, hn::Zero(SignedBytes())), hn::Neg(x), x);
#endif
}

#if HWY_TARGET == HWY_AVX3
// sum + of each four neighbouring bytes the sum of their products (AVX512-VNNI). Not an intrinsic: this
// target is compiled for every AVX-512, of which some lack the instruction.
HWY_INLINE VInts dot_bytes(VInts sum, VBytes w, hn::Vec<SignedBytes> x) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum.raw) : "v"(w.raw), "v"(x.raw));
  return sum;
}
HWY_INLINE VInts dot_bytes(VInts sum, VBytes w, const int8_t* x) {
  asm("vpdpbusd %2%{1to16%}, %1, %0"
      : "+v"(sum.raw)
      : "v"(w.raw), "m"(*reinterpret_cast<const int32_t(*)[1]>(x)));
  return sum;
}
#endif

HWY_INLINE VBytes low_codes(VBytes v) { return hn::And(v, hn::Set(Bytes(), uint8_t{15})); }
HWY_INLINE VBytes high_codes(VBytes v) {
  return low_codes(hn::BitCast(Bytes(), hn::ShiftRight<4>(hn::BitCast(Words(), v))));
}

// A group's scales of one run, and what is added times the run's inputs.
struct GroupScales {
  VFloats scale, minimum;
};
HWY_INLINE VFloats halves(const uint8_t* from) {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
  const hn::Rebind<hwy::float16_t, Floats> d;
  return hn::PromoteTo(Floats(), hn::LoadU(d, reinterpret_cast<const hwy::float16_t*>(from)));
#else
  HWY_ALIGN float values[kGroup];
  for (int64_t i = 0; i < kGroup; ++i) values[i] = half_at(from + 2 * i);
  return hn::Load(Floats(), values);
#endif
}

// A kind of block (row_groups.h). kBytes: of a group's run. words(): calls word(q, codes) for each word q of
// a run; scales(): from the block or from a table made before. Q4_0, Q4_1: values 0 … 15 in the low nibbles
// and 16 … 31 in the high ones; before them the scales (8 is taken off each code), or scales and minima.
template <bool kWithMinimum>
struct NibbleBlocks {
  static constexpr bool kSigned = false, kTable = false;
  static constexpr int64_t kHeader = kGroup * (kWithMinimum ? 4 : 2), kBytes = kHeader + 4 * kVector;
  template <class Word>
  static HWY_INLINE void words(const uint8_t* group, int64_t run, const Word& word) {
    const uint8_t* from = group + run * kBytes + kHeader;
#pragma GCC unroll 4
    for (int64_t q = 0; q < 4; ++q) {
      const auto v = hn::LoadU(Bytes(), from + q * kVector);
      word(q, low_codes(v));
      word(q + 4, high_codes(v));
    }
  }
  static HWY_INLINE GroupScales scales(const uint8_t* group, int64_t run, const float*) {
    const uint8_t* from = group + run * kBytes;
    const VFloats scale = halves(from);
    if constexpr (kWithMinimum) return {scale, halves(from + 2 * kGroup)};
    return {scale, hn::Mul(scale, hn::Set(Floats(), -8.0f))};
  }
};

struct Q8Blocks {
  static constexpr bool kSigned = true, kTable = false;
  static constexpr int64_t kHeader = 2 * kGroup, kBytes = kHeader + kWords * kVector;
  template <class Word>
  static HWY_INLINE void words(const uint8_t* group, int64_t run, const Word& word) {
    const uint8_t* from = group + run * kBytes + kHeader;
#pragma GCC unroll 8
    for (int64_t q = 0; q < kWords; ++q) word(q, hn::LoadU(Bytes(), from + q * kVector));
  }
  static HWY_INLINE GroupScales scales(const uint8_t* group, int64_t run, const float*) {
    const VFloats scale = halves(group + run * kBytes);
    return {scale, scale};
  }
};

// Runs 2p and 2p + 1 of eight are the low and high nibbles of eight words; scales stand in a table.
struct Q4KBlocks {
  static constexpr bool kSigned = false, kTable = true;
  static constexpr int64_t kHeader = 16 * kGroup, kBlock = kHeader + 4 * kWords * kVector,
                           kBytes = kBlock / 8;
  template <class Word>
  static HWY_INLINE void words(const uint8_t* group, int64_t run, const Word& word) {
    const uint8_t* from = group + run / 8 * kBlock + kHeader + run % 8 / 2 * kWords * kVector;
    if (run % 2 == 0) {
#pragma GCC unroll 8
      for (int64_t q = 0; q < kWords; ++q) word(q, low_codes(hn::LoadU(Bytes(), from + q * kVector)));
    } else {
#pragma GCC unroll 8
      for (int64_t q = 0; q < kWords; ++q) word(q, high_codes(hn::LoadU(Bytes(), from + q * kVector)));
    }
  }
  static HWY_INLINE GroupScales scales(const uint8_t*, int64_t run, const float* table) {
    return {hn::Load(Floats(), table + run * 2 * kGroup), hn::Load(Floats(), table + (run * 2 + 1) * kGroup)};
  }
  static void fill_table(const uint8_t* group, int64_t runs, float* table) {
    for (int64_t i = 0; i < kGroup; ++i)
      for (int64_t run = 0; run < runs; ++run) {
        const uint8_t* header = group + run / 8 * kBlock + 16 * i;
        const ScaleMin s = scale_min(header + 4, static_cast<int>(run % 8));
        table[run * 2 * kGroup + i] = half_at(header) * s.scale;
        table[(run * 2 + 1) * kGroup + i] = -half_at(header + 2) * s.min;
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

// Fetches of the weights that come next: with each run of inputs that pass over a group a few bytes. A little
// at a time: many fetches at once wait for one another.
struct Ahead {
  const uint8_t *next, *end;
  int64_t step;  // bytes with a run
  Ahead(const uint8_t* from, int64_t step_) : next(from), end(from), step(step_) {}
  HWY_INLINE void fetch() {
    for (end += step; next < end; next += 64) hwy::Prefetch(next);
  }
  // The same for one input, whose step is known.
  template <int64_t kStep>
  HWY_INLINE void fetch_step() {
    for (int64_t i = 0; i < kStep; i += 64) hwy::Prefetch(next + i);
    next += kStep;
  }
};
// How far before it is used. One input: tuned; more: the next group, if it fits a first cache.
inline int64_t bytes_ahead(int64_t group_bytes, int64_t inputs) {
  return inputs == 1 ? 4096 : std::clamp<int64_t>(group_bytes, 4096, 16384);
}

// How inputs meet a group. kLaid: its codes and scales as lay_out() makes them, else as it lies. kDot: by
// AVX512-VNNI's instruction.
template <bool kLaidOut, bool kByDot>
struct Way {
  static constexpr bool kLaid = kLaidOut, kDot = kByDot;
};

// N inputs beside a group. Sums are named: GCC keeps an array of them in memory. What the minima add comes
// after the products of a laid out group for the same reason, registers.
template <class Blocks, int N, class W>
HWY_NOINLINE void multiply_group(const uint8_t* HWY_RESTRICT group, const uint8_t* HWY_RESTRICT codes,
                                 const float* HWY_RESTRICT table, const ByteInputs& x, Ahead ahead, int64_t n,
                                 AnyFloats to, int64_t ld) {
  static_assert(N <= 8);
  constexpr bool kInts = Blocks::kSigned || W::kDot;
  using Sum = std::conditional_t<kInts, VInts, VShorts>;
  using SumTag = std::conditional_t<kInts, Ints, Shorts>;
  const auto zero = hn::Zero(Floats());
  auto p0 = zero, p1 = zero, p2 = zero, p3 = zero, p4 = zero, p5 = zero, p6 = zero, p7 = zero;
  auto m0 = zero, m1 = zero, m2 = zero, m3 = zero, m4 = zero, m5 = zero, m6 = zero, m7 = zero;
  const auto minima = [&](const auto& with) HWY_ATTR {
    with(0, m0);
    if constexpr (N > 1) with(1, m1);
    if constexpr (N > 2) with(2, m2);
    if constexpr (N > 3) with(3, m3);
    if constexpr (N > 4) with(4, m4);
    if constexpr (N > 5) with(5, m5);
    if constexpr (N > 6) with(6, m6);
    if constexpr (N > 7) with(7, m7);
  };
  const int8_t* values = x.values;
  for (int64_t run = 0; run < x.runs; ++run, values += N * kByteRun) {
    const auto begun = [&](int i) HWY_ATTR {
      if constexpr (W::kDot && Blocks::kSigned) return hn::Set(Ints(), x.offsets[run * N + i]);
      return hn::Zero(SumTag());
    };
    Sum s0 = begun(0), s1 = hn::Zero(SumTag()), s2 = s1, s3 = s1, s4 = s1, s5 = s1, s6 = s1, s7 = s1;
    if constexpr (N > 1) s1 = begun(1);
    if constexpr (N > 2) s2 = begun(2);
    if constexpr (N > 3) s3 = begun(3);
    if constexpr (N > 4) s4 = begun(4);
    if constexpr (N > 5) s5 = begun(5);
    if constexpr (N > 6) s6 = begun(6);
    if constexpr (N > 7) s7 = begun(7);
    const auto word = [&](int64_t q, VBytes w) HWY_ATTR {
      // Signed codes + 128, which the sums' beginning takes off again.
      if constexpr (W::kDot && Blocks::kSigned) w = hn::Xor(w, hn::Set(Bytes(), uint8_t{128}));
      const auto input = [&](int i, Sum& sum) HWY_ATTR {
        const int8_t* at = values + i * kByteRun + 4 * q;
        int32_t bits;
        std::memcpy(&bits, at, 4);
        const auto inputs = hn::BitCast(SignedBytes(), hn::Set(Ints(), bits));
        const auto codes_signed = hn::BitCast(SignedBytes(), w);
        const auto magnitude = hn::BitCast(Bytes(), hn::Abs(codes_signed));
        if constexpr (W::kDot) {
#if HWY_TARGET == HWY_AVX3
          sum = dot_bytes(sum, w, at);
#endif
        } else if constexpr (Blocks::kSigned) {
          sum = hn::Add(sum, add_neighbours(multiply_bytes(magnitude, turned(codes_signed, inputs))));
        } else {
          sum = hn::Add(sum, multiply_bytes(w, inputs));
        }
      };
      input(0, s0);
      if constexpr (N > 1) input(1, s1);
      if constexpr (N > 2) input(2, s2);
      if constexpr (N > 3) input(3, s3);
      if constexpr (N > 4) input(4, s4);
      if constexpr (N > 5) input(5, s5);
      if constexpr (N > 6) input(6, s6);
      if constexpr (N > 7) input(7, s7);
    };
    if constexpr (W::kLaid) {
#pragma GCC unroll 4
      for (int64_t q = 0; q < kWords; ++q, codes += kVector) word(q, hn::Load(Bytes(), codes));
    } else {
      if constexpr (N == 1)
        ahead.fetch_step<Blocks::kBytes>();
      else
        ahead.fetch();
      Blocks::words(group, run, word);
    }
    GroupScales s;
    if constexpr (W::kLaid)
      s.scale = hn::Load(Floats(), table + run * 2 * kGroup);
    else
      s = Blocks::scales(group, run, table);
    const auto scaled = [&](int i, const Sum& sum, VFloats& products) HWY_ATTR {
      const float input_scale = x.scales[run * N + i];
      if constexpr (kInts)
        products = add_scaled(sum, s.scale, input_scale, products);
      else
        products = add_scaled(add_neighbours(sum), s.scale, input_scale, products);
    };
    scaled(0, s0, p0);
    if constexpr (N > 1) scaled(1, s1, p1);
    if constexpr (N > 2) scaled(2, s2, p2);
    if constexpr (N > 3) scaled(3, s3, p3);
    if constexpr (N > 4) scaled(4, s4, p4);
    if constexpr (N > 5) scaled(5, s5, p5);
    if constexpr (N > 6) scaled(6, s6, p6);
    if constexpr (N > 7) scaled(7, s7, p7);
    if constexpr (!W::kLaid && !Blocks::kSigned)
      minima([&](int i, VFloats& sum)
                 HWY_ATTR { sum = hn::MulAdd(s.minimum, hn::Set(Floats(), x.sums[run * N + i]), sum); });
  }
  if constexpr (W::kLaid && !Blocks::kSigned)
    for (int64_t run = 0; run < x.runs; ++run) {
      const auto minimum = hn::Load(Floats(), table + (run * 2 + 1) * kGroup);
      minima([&](int i, VFloats& sum)
                 HWY_ATTR { sum = hn::MulAdd(minimum, hn::Set(Floats(), x.sums[run * N + i]), sum); });
    }
  store_group(hn::Add(p0, m0), n, to);
  if constexpr (N > 1) store_group(hn::Add(p1, m1), n, to + ld);
  if constexpr (N > 2) store_group(hn::Add(p2, m2), n, to + 2 * ld);
  if constexpr (N > 3) store_group(hn::Add(p3, m3), n, to + 3 * ld);
  if constexpr (N > 4) store_group(hn::Add(p4, m4), n, to + 4 * ld);
  if constexpr (N > 5) store_group(hn::Add(p5, m5), n, to + 5 * ld);
  if constexpr (N > 6) store_group(hn::Add(p6, m6), n, to + 6 * ld);
  if constexpr (N > 7) store_group(hn::Add(p7, m7), n, to + 7 * ld);
}
// The next block of inputs; returns how many.
template <class Blocks, class W>
HWY_INLINE int64_t multiply_block(const uint8_t* group, const uint8_t* codes, const float* table,
                                  const ByteInputs& x, Ahead ahead, int64_t n, AnyFloats to, int64_t ld) {
  const auto with = [&](auto count) HWY_ATTR {
    ahead.step *= count;
    multiply_group<Blocks, decltype(count)::value, W>(group, codes, table, x, ahead, n, to, ld);
    return static_cast<int64_t>(count);
  };
  switch (block_of(x.count, kMostInputs)) {
#if HWY_TARGET == HWY_AVX3
    case 8:
      return with(std::integral_constant<int, 8>());
#endif
    case 4:
      return with(std::integral_constant<int, 4>());
    case 2:
      return with(std::integral_constant<int, 2>());
    default:
      return with(std::integral_constant<int, 1>());
  }
}

// Codes and scales of a group: [run][word][row][4 codes], [run][scale or minimum][row].
template <class Blocks>
void lay_out(const uint8_t* group, int64_t runs, uint8_t* codes, float* table) {
  Ahead ahead(group + bytes_ahead(runs * Blocks::kBytes, 1), Blocks::kBytes);
  for (int64_t run = 0; run < runs; ++run, codes += kWords * kVector) {
    ahead.fetch();
    Blocks::words(group, run,
                  [&](int64_t q, VBytes w) HWY_ATTR { hn::Store(w, Bytes(), codes + q * kVector); });
    if constexpr (Blocks::kTable) continue;
    const GroupScales s = Blocks::scales(group, run, nullptr);
    hn::Store(s.scale, Floats(), table + run * 2 * kGroup);
    hn::Store(s.minimum, Floats(), table + (run * 2 + 1) * kGroup);
  }
}

// to[t * ld + i]: `count` rows of weights, every input.
template <class Blocks, bool kDot>
void product_rows(const uint8_t* group, int64_t count, const ByteInputs& x, AnyFloats to, int64_t ld) {
  constexpr int64_t kUnlaid = HWY_TARGET == HWY_AVX3 ? 16 : 4;
  float* table = local_buffer(LocalSlot::kB, x.runs * (2 * kGroup + kWords * kVector / 4));
  auto* codes = reinterpret_cast<uint8_t*>(table + x.runs * 2 * kGroup);
  const bool laid = x.count > kUnlaid;
  for (int64_t i = 0; i < count; i += kGroup, group += x.runs * Blocks::kBytes) {
    const int64_t n = std::min(kGroup, count - i);
    if constexpr (Blocks::kTable) Blocks::fill_table(group, x.runs, table);
    if (laid) lay_out<Blocks>(group, x.runs, codes, table);
    const uint8_t* next = group + bytes_ahead(x.runs * Blocks::kBytes, x.count);
    for (int64_t t = 0; t < x.count;) {
      const Ahead ahead(next + x.runs * Blocks::kBytes * t / x.count, Blocks::kBytes / x.count);
      t += laid ? multiply_block<Blocks, Way<true, kDot>>(nullptr, codes, table, x.from(t), ahead, n,
                                                          to + (t * ld + i), ld)
                : multiply_block<Blocks, Way<false, kDot>>(group, nullptr, table, x.from(t), ahead, n,
                                                           to + (t * ld + i), ld);
    }
  }
}

template <bool kDot>
void rounded_rows_by(GgmlType type, const uint8_t* groups, int64_t count, const ByteInputs& x, AnyFloats to,
                     int64_t ld) {
  switch (type) {
    case GgmlType::kQ4_0:
      return product_rows<NibbleBlocks<false>, kDot>(groups, count, x, to, ld);
    case GgmlType::kQ4_1:
      return product_rows<NibbleBlocks<true>, kDot>(groups, count, x, to, ld);
    case GgmlType::kQ4_K:
      return product_rows<Q4KBlocks, kDot>(groups, count, x, to, ld);
    default:
      return product_rows<Q8Blocks, kDot>(groups, count, x, to, ld);
  }
}
void rounded_rows(GgmlType type, bool dot, const uint8_t* groups, int64_t count, const ByteInputs& x,
                  AnyFloats to, int64_t ld) {
#if HWY_TARGET == HWY_AVX3
  if (dot) return rounded_rows_by<true>(type, groups, count, x, to, ld);
#endif
  (void)dot;
  rounded_rows_by<false>(type, groups, count, x, to, ld);
}

// Σ of the 32 bytes.
int32_t sum_of_bytes(const int8_t* from) {
  const hn::CappedTag<uint8_t, kByteRun> d;
  const hn::Repartition<uint64_t, decltype(d)> d64;
  auto sums = hn::Zero(d64);
  for (int64_t i = 0; i < kByteRun; i += static_cast<int64_t>(hn::Lanes(d)))
    sums = hn::Add(sums, hn::SumsOf8(hn::Xor(hn::LoadU(d, reinterpret_cast<const uint8_t*>(from) + i),
                                             hn::Set(d, uint8_t{128}))));
  return static_cast<int32_t>(hn::GetLane(hn::SumOfLanes(d64, sums))) - 128 * kByteRun;
}

// Input t of x, from its row (bf16).
void bytes_of_row(const BFloat16* row, const ByteInputs& x, int64_t t) {
  const F32 d;
  int64_t begin = t / kMostInputs * kMostInputs, together = block_of(x.count - begin, kMostInputs);
  while (t >= begin + together) {
    begin += together;
    together = block_of(x.count - begin, kMostInputs);
  }
  const ByteInputs block = x.from(begin);
  for (int64_t run = 0; run < x.runs; ++run, row += kByteRun) {
    const int64_t at = run * together + t - begin;
    auto sum = hn::Zero(d);
    for (int64_t i = 0; i < kByteRun; i += kLanes) sum = hn::Add(sum, load_f32(d, row + i));
    block.sums[at] = hn::GetLane(hn::SumOfLanes(d, sum));
    block.scales[at] = to_integers(row, kByteRun, 127, block.values + at * kByteRun);
    if (block.offsets != nullptr) block.offsets[at] = -128 * sum_of_bytes(block.values + at * kByteRun);
  }
}

int64_t lanes_of_group() { return kGroup; }

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::backend::cpu {
namespace {

HWY_EXPORT(rounded_rows);
HWY_EXPORT(bytes_of_row);
HWY_EXPORT(lanes_of_group);

}  // namespace

int64_t rows_of_group() { return HWY_DYNAMIC_DISPATCH(lanes_of_group)(); }

void rounded_product(Stream& stream, const Tensor& x, std::span<RoundedMatvec> products) {
  const int64_t count = x.shape().rows(), cols = x.shape().last(), runs = cols / kByteRun,
                group = rows_of_group();
  require(x.dtype() == kBF16, "rounded_product", "expected bf16, got {}", dtype_name(x.dtype()));
  int64_t all = 0;  // groups
  bool any_signed = false;
  const bool by_dot = byte_step() == Step::kByte;
  for (const auto& [w, rows, y] : products) {
    require(has_rounded_product(*w) && w->cols() == cols, "rounded_product",
            "x {} does not fit a {} weight {}", x.shape(), w->format->name, w->shape);
    require(rows->rows == group && rows->bytes.numel() == bytes_of_groups(*w), "rounded_product",
            "the rows of the {} weight {} are not in groups of {}", w->format->name, w->shape, group);
    require(y.shape().last() == w->rows() && y.shape().rows() == count, "rounded_product",
            "{} times {} into {}", x.shape(), w->shape, y.shape());
    (void)AnyFloats(y, "rounded_product");
    all += (w->rows() + group - 1) / group;
    any_signed |= static_cast<GgmlType>(w->ggml_type) == GgmlType::kQ8_0;
  }
  auto* scales = reinterpret_cast<float*>(
      stream.scratch(Stream::kKernelSlot, static_cast<size_t>(count * (3 * runs * 4 + cols))));
  float* sums = scales + count * runs;
  auto* offsets = reinterpret_cast<int32_t*>(sums + count * runs);
  const ByteInputs inputs{reinterpret_cast<int8_t*>(offsets + count * runs),
                          scales,
                          sums,
                          any_signed ? offsets : nullptr,
                          count,
                          runs};
  parallel_for(count, 8, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      HWY_DYNAMIC_DISPATCH(bytes_of_row)(reinterpret_cast<const BFloat16*>(x.raw()) + t * cols, inputs, t);
  });
  // Few inputs: two chunks for each thread, since long stretches of memory are read faster than short ones in
  // turn, and what a chunk begins with was not fetched.
  constexpr int64_t kChunk = 4;
  const int64_t share = count <= kFewInputs ? (all - 1) / (2 * threads()) + 1 : kChunk;
  parallel_for(all, share, [&](int64_t begin, int64_t end) {
    int64_t first = 0;  // of the groups of all weights the product's first
    for (const auto& [w, rows, y] : products) {
      const int64_t groups = (w->rows() + group - 1) / group, from = std::max(begin - first, int64_t{0}),
                    until = std::min(end - first, groups);
      first += groups;
      if (from >= until) continue;
      const int64_t row = from * group, bytes = rows->bytes.numel() / groups;
      HWY_DYNAMIC_DISPATCH(rounded_rows)
      (static_cast<GgmlType>(w->ggml_type), by_dot,
       reinterpret_cast<const uint8_t*>(rows->bytes.raw()) + from * bytes,
       std::min(until * group, w->rows()) - row, inputs, AnyFloats(y, "rounded_product") + row, w->rows());
    }
  });
}

}  // namespace nibble::backend::cpu
#endif  // HWY_ONCE
