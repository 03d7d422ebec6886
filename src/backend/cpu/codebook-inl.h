// 4-bit codes to values through a table held in registers, a plane of bytes per byte of the element. Shuffles
// stay within 16 bytes, so every instruction set has them. Per-target include guard.
#if defined(NIBBLE_CPU_CODEBOOK_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_CPU_CODEBOOK_INL
#undef NIBBLE_CPU_CODEBOOK_INL
#else
#define NIBBLE_CPU_CODEBOOK_INL
#endif

#include <cmath>
#include <limits>

#include "backend/cpu/convert-inl.h"
#include "quant/format.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

using B8 = hn::Full128<uint8_t>;
using B16 = hn::Full128<uint16_t>;
using B32 = hn::Full128<uint32_t>;
using BF = hn::Full128<float>;
using VB8 = hn::Vec<B8>;

// Codes of 32 values out of 16 bytes, in order of value.
struct Codes32 {
  VB8 first, second;
};
HWY_INLINE Codes32 unpack_codes(const uint8_t* bytes) {
  const auto v = hn::LoadU(B8(), bytes);
  const auto mask = hn::Set(B8(), uint8_t{15});
  const auto high = hn::And(hn::BitCast(B8(), hn::ShiftRight<4>(hn::BitCast(B16(), v))), mask);
  const auto low = hn::And(v, mask);
  return {hn::InterleaveLower(B8(), high, low), hn::InterleaveUpper(B8(), high, low)};
}

// A block's 16 values, scaled and rounded to T. lookup() writes the values of 16 codes.
template <class T>
struct Table;

template <>
struct Table<BFloat16> {
  VB8 low, high;
  HWY_INLINE Table(const std::array<float, 16>& values, float absmax) {
    const auto scale = hn::Set(BF(), absmax);
    const auto bits = [&](size_t i) HWY_ATTR {
      return hn::BitCast(B16(),
                         bf16_bits(B32(), hn::BitCast(B32(), hn::Mul(hn::LoadU(BF(), &values[i]), scale))));
    };
    const auto a = hn::BitCast(B8(), hn::ConcatEven(B16(), bits(4), bits(0)));
    const auto b = hn::BitCast(B8(), hn::ConcatEven(B16(), bits(12), bits(8)));
    low = hn::ConcatEven(B8(), b, a);
    high = hn::ConcatOdd(B8(), b, a);
  }
  HWY_INLINE void lookup(VB8 codes, BFloat16* out) const {
    auto* to = reinterpret_cast<uint8_t*>(out);
    const auto l = hn::TableLookupBytes(low, codes), h = hn::TableLookupBytes(high, codes);
    hn::StoreU(hn::InterleaveLower(B8(), l, h), B8(), to);
    hn::StoreU(hn::InterleaveUpper(B8(), l, h), B8(), to + 16);
  }
};

template <>
struct Table<float> {
  VB8 plane0, plane1, plane2, plane3;
  HWY_INLINE Table(const std::array<float, 16>& values, float absmax) {
    const auto scale = hn::Set(BF(), absmax);
    const auto bits = [&](size_t i) HWY_ATTR {
      return hn::BitCast(B16(), hn::Mul(hn::LoadU(BF(), &values[i]), scale));
    };
    const auto v0 = bits(0), v1 = bits(4), v2 = bits(8), v3 = bits(12);
    const auto low_a = hn::BitCast(B8(), hn::ConcatEven(B16(), v1, v0)),
               low_b = hn::BitCast(B8(), hn::ConcatEven(B16(), v3, v2));
    const auto high_a = hn::BitCast(B8(), hn::ConcatOdd(B16(), v1, v0)),
               high_b = hn::BitCast(B8(), hn::ConcatOdd(B16(), v3, v2));
    plane0 = hn::ConcatEven(B8(), low_b, low_a);
    plane1 = hn::ConcatOdd(B8(), low_b, low_a);
    plane2 = hn::ConcatEven(B8(), high_b, high_a);
    plane3 = hn::ConcatOdd(B8(), high_b, high_a);
  }
  HWY_INLINE void lookup(VB8 codes, float* out) const {
    auto* to = reinterpret_cast<uint16_t*>(out);
    const auto p0 = hn::TableLookupBytes(plane0, codes), p1 = hn::TableLookupBytes(plane1, codes);
    const auto p2 = hn::TableLookupBytes(plane2, codes), p3 = hn::TableLookupBytes(plane3, codes);
    const auto store = [&](VB8 low, VB8 high, uint16_t* at) HWY_ATTR {
      const auto l = hn::BitCast(B16(), low), h = hn::BitCast(B16(), high);
      hn::StoreU(hn::InterleaveLower(B16(), l, h), B16(), at);
      hn::StoreU(hn::InterleaveUpper(B16(), l, h), B16(), at + 8);
    };
    store(hn::InterleaveLower(B8(), p0, p1), hn::InterleaveLower(B8(), p2, p3), to);
    store(hn::InterleaveUpper(B8(), p0, p1), hn::InterleaveUpper(B8(), p2, p3), to + 16);
  }
};

#if HWY_TARGET == HWY_AVX3
// The same for 64 values at a time, as 16-bit words of a table that stands twice in its vector.
struct WideTable {
  __m512i words;
  HWY_INLINE WideTable(const std::array<float, 16>& values, float absmax) {
    const hn::FixedTag<float, 16> d;
    const hn::FixedTag<uint32_t, 16> d32;
    const auto v = hn::BitCast(d32, hn::Mul(hn::LoadU(d, values.data()), hn::Set(d, absmax)));
    const bool finite = std::abs(absmax) <= std::numeric_limits<float>::max();
    // bf16_bits() of what cannot be NaN, where that is known.
    const auto odd = hn::And(hn::ShiftRight<16>(v), hn::Set(d32, 1u));
    const auto bits =
        finite ? hn::ShiftRight<16>(hn::Add(v, hn::Add(odd, hn::Set(d32, 0x7FFFu)))) : bf16_bits(d32, v);
    const __m256i once = _mm512_cvtepi32_epi16(bits.raw);
    words = _mm512_broadcast_i64x4(once);
  }
  // By AVX512-BF16's instruction, for scales of at least kLeastScale: it takes what is too small for normal
  // numbers as zero, which a table's values must not come near. No code book has one below 2^-20 but zero
  // itself.
  static constexpr float kLeastScale = 0x1p-100f;
  HWY_INLINE WideTable(hn::Vec<hn::FixedTag<float, 16>> values, float absmax) {
    const auto scaled = hn::Mul(values, hn::Set(hn::FixedTag<float, 16>(), absmax));
    asm("vcvtne2ps2bf16 %1, %1, %0" : "=v"(words) : "v"(scaled.raw));
  }
  // Interleaving stays within 16 bytes: groups of four bytes are laid out so that what comes of them is in
  // order. A word's other bits choose between the two tables or nothing.
  HWY_INLINE void lookup(const uint8_t* bytes, BFloat16* out) const {
    const __m256i v = _mm256_permutevar8x32_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes)),
                                                  _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    const __m512i codes = _mm512_cvtepu8_epi16(v);
    const __m512i first = _mm512_permutexvar_epi16(_mm512_srli_epi16(codes, 4), words),
                  second = _mm512_permutexvar_epi16(codes, words);
    _mm512_storeu_si512(out, _mm512_unpacklo_epi16(first, second));
    _mm512_storeu_si512(out + 32, _mm512_unpackhi_epi16(first, second));
  }
};
#elif HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
// The same for 64 values at a time in vectors of 32 bytes, both halves of a table alike.
struct WideTable {
  using D8 = hn::FixedTag<uint8_t, 32>;
  using D16 = hn::FixedTag<uint16_t, 16>;
  using D32 = hn::FixedTag<uint32_t, 8>;
  hn::Vec<D8> low, high;
  // Four values at a time in both halves: nothing crosses from one to the other, which would take longer than
  // the rest of a short block.
  HWY_INLINE WideTable(const std::array<float, 16>& values, float absmax) {
    const hn::FixedTag<float, 8> d;
    const auto scale = hn::Set(d, absmax);
    const bool finite = std::abs(absmax) <= std::numeric_limits<float>::max();
    const auto bits = [&](size_t i) HWY_ATTR {
      const auto v = hn::BitCast(D32(), hn::Mul(hn::LoadDup128(d, &values[i]), scale));
      if (!finite) return bf16_bits(D32(), v);
      // bf16_bits() of what cannot be NaN.
      const auto odd = hn::And(hn::ShiftRight<16>(v), hn::Set(D32(), 1u));
      return hn::ShiftRight<16>(hn::Add(v, hn::Add(odd, hn::Set(D32(), 0x7FFFu))));
    };
    const __m256i first = _mm256_packus_epi32(bits(0).raw, bits(4).raw),
                  second = _mm256_packus_epi32(bits(8).raw, bits(12).raw), byte = _mm256_set1_epi16(0xFF);
    low.raw = _mm256_packus_epi16(_mm256_and_si256(first, byte), _mm256_and_si256(second, byte));
    high.raw = _mm256_packus_epi16(_mm256_srli_epi16(first, 8), _mm256_srli_epi16(second, 8));
  }
  // Interleaving stays within 16 bytes: groups of four bytes are laid out so that what comes of them is in
  // order.
  HWY_INLINE void lookup(const uint8_t* bytes, BFloat16* out) const {
    HWY_ALIGN static constexpr uint32_t kGroups[8] = {0, 2, 4, 6, 1, 3, 5, 7};
    const auto v = hn::BitCast(D8(), hn::TableLookupLanes(hn::BitCast(D32(), hn::LoadU(D8(), bytes)),
                                                          hn::SetTableIndices(D32(), kGroups)));
    const auto mask = hn::Set(D8(), uint8_t{15});
    const auto upper = hn::And(hn::BitCast(D8(), hn::ShiftRight<4>(hn::BitCast(D16(), v))), mask);
    const auto lower = hn::And(v, mask);
    auto* to = reinterpret_cast<uint8_t*>(out);
    const auto write = [&](hn::Vec<D8> codes, uint8_t* at) HWY_ATTR {
      const auto l = hn::TableLookupBytes(low, codes), h = hn::TableLookupBytes(high, codes);
      hn::StoreU(hn::InterleaveLower(D8(), l, h), D8(), at);
      hn::StoreU(hn::InterleaveUpper(D8(), l, h), D8(), at + 32);
    };
    write(hn::InterleaveLower(D8(), upper, lower), to);
    write(hn::InterleaveUpper(D8(), upper, lower), to + 64);
  }
};
#endif

// Values [begin, end) of one block, both counted in the whole tensor; codes is the tensor's first byte.
template <class T>
HWY_INLINE void decode_block(const quant::Codebook4& book, float absmax, const uint8_t* codes, int64_t begin,
                             int64_t end, T* out) {
  const auto one = [&](int64_t i, T* to) {
    narrow(book.values[i % 2 == 0 ? codes[i / 2] >> 4 : codes[i / 2] & 15] * absmax, to);
  };
  int64_t i = begin;
  if (i % 2 != 0 && i < end) one(i++, out++);
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
  if constexpr (std::is_same_v<T, BFloat16>) {
    if (end - i >= 64) {
      const WideTable table(book.values, absmax);
      for (; end - i >= 64; i += 64, out += 64) table.lookup(codes + i / 2, out);
    }
  }
#endif
  if (end - i >= 32) {
    const Table<T> table(book.values, absmax);
    for (; end - i >= 32; i += 32, out += 32) {
      const Codes32 c = unpack_codes(codes + i / 2);
      table.lookup(c.first, out);
      table.lookup(c.second, out + 16);
    }
  }
  for (; i < end; ++i) one(i, out++);
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // per-target include guard
