#include <limits>
#include <vector>

#include "backend/cpu/convert.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/simd_targets.h"
#include "base/parallel.h"
#include "quant/parts.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/encode_weight.cpp"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway wants it:
#include "backend/cpu/codebook-inl.h"
#include "backend/cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

constexpr float kLeastAbsmax = 1e-38f;  // see quant/codebook.cpp, whose rules these are

// max |v|; bits of magnitudes order as integers, with NaN above everything.
template <class T>
HWY_INLINE float magnitude_of(const T* v, int64_t n) {
  const F32 d;
  const I32 di;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto mask = hn::Set(di, 0x7FFFFFFF);
  auto largest = hn::Zero(di);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    largest = hn::Max(largest, hn::And(hn::BitCast(di, load_f32(d, v + i)), mask));
  int32_t bits = hn::GetLane(hn::MaxOfLanes(di, largest));
  for (; i < n; ++i) bits = std::max(bits, std::bit_cast<int32_t>(widen(v[i])) & 0x7FFFFFFF);
  return bits > 0x7F800000 ? std::numeric_limits<float>::quiet_NaN() : std::bit_cast<float>(bits);
}

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
// How many thresholds lie below each value (15 for NaN), less 15: a binary search whose steps are a
// comparison and two additions each, and whose later ones look thresholds up by the lowest three bits of what
// they have.
class NegativeCount {
 public:
  HWY_INLINE explicit NegativeCount(const std::array<float, 15>& t)
      : middle_(_mm256_set1_ps(t[7])), lower_(_mm256_set1_ps(t[3])), upper_(_mm256_set1_ps(t[11])) {
    // After two steps 0 … -3, after three 0 … -7.
    third_ = _mm256_setr_ps(t[13], 0, 0, 0, 0, t[1], t[5], t[9]);
    last_ = _mm256_setr_ps(t[14], t[0], t[2], t[4], t[6], t[8], t[10], t[12]);
  }
  HWY_INLINE __m256i operator()(__m256 x) const {
    const auto at_most = [&](__m256 t)
                             HWY_ATTR { return _mm256_castps_si256(_mm256_cmp_ps(x, t, _CMP_LE_OQ)); };
    const auto twice = [](__m256i v) HWY_ATTR { return _mm256_add_epi32(v, v); };
    const __m256i low = at_most(middle_);
    __m256i count =
        _mm256_add_epi32(twice(low), at_most(_mm256_blendv_ps(upper_, lower_, _mm256_castsi256_ps(low))));
    count = _mm256_add_epi32(twice(count), at_most(_mm256_permutevar8x32_ps(third_, count)));
    return _mm256_add_epi32(twice(count), at_most(_mm256_permutevar8x32_ps(last_, count)));
  }

 private:
  __m256 middle_, lower_, upper_, third_, last_;
};
#endif

// How many thresholds lie below each value, 15 for NaN; where there is no search, one comparison for each.
class ThresholdCount {
 public:
  HWY_INLINE explicit ThresholdCount(const std::array<float, 15>& t) : t_(t) {}
  HWY_INLINE hn::Vec<I32> operator()(VF32 x) const {
    const I32 di;
    auto count = hn::Set(di, 15);
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
    return hn::Add(count, hn::Vec<I32>{t_(x.raw)});
#else
    for (const float t : t_)  // a true mask is -1
      count = hn::Add(count, hn::BitCast(di, hn::VecFromMask(F32(), hn::Le(x, hn::Set(F32(), t)))));
    return count;
#endif
  }

 private:
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
  NegativeCount t_;
#else
  const std::array<float, 15>& t_;
#endif
};

// Values of one block to codes; codes has room for whole vectors of 16.
void code_values(const quant::Codebook4& book, const float* v, int64_t n, bool full, float absmax,
                 uint8_t* codes) {
  const F32 d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto factor = hn::Set(d, full ? 1.0f / absmax : absmax);
  const ThresholdCount count(book.thresholds);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto x = full ? hn::Mul(hn::LoadU(d, v + i), factor) : hn::Div(hn::LoadU(d, v + i), factor);
    hn::StoreU(hn::DemoteTo(U8(), count(x)), U8(), codes + i);
  }
  for (; i < n; ++i) {
    const float x = full ? v[i] * (1.0f / absmax) : v[i] / absmax;
    codes[i] = 15;
    for (const float t : book.thresholds) codes[i] = static_cast<uint8_t>(codes[i] - (x <= t ? 1 : 0));
  }
  const auto order = hn::LoadU(B8(), book.order.data());
  for (i = 0; i < n; i += 16)
    hn::StoreU(hn::TableLookupBytes(order, hn::LoadU(B8(), codes + i)), B8(), codes + i);
}

// One block of at most `block` values; scratch holds block + 32 codes.
float encode_one(const quant::Codebook4& book, int bits, const float* v, int64_t n, int64_t block,
                 uint8_t* scratch, uint8_t* out) {
  const float largest = magnitude_of(v, n), clamped = largest < kLeastAbsmax ? kLeastAbsmax : largest;
  const bool full = n == block;
  code_values(book, v, n, full, clamped, scratch);
  if (n % 2 != 0) scratch[n] = book.zero_code;
  int64_t i = 0;
  for (; bits == 4 && i + 32 <= n; i += 32) {
    const auto a = hn::LoadU(B8(), scratch + i), b = hn::LoadU(B8(), scratch + i + 16);
    const auto even = hn::BitCast(B16(), hn::ConcatEven(B8(), b, a));
    hn::StoreU(hn::Or(hn::BitCast(B8(), hn::ShiftLeft<4>(even)), hn::ConcatOdd(B8(), b, a)), B8(),
               out + i / 2);
  }
  quant::pack_codes(scratch + i, n - i, bits, out + i / 2);
  return full ? largest : clamped;
}

#if HWY_TARGET == HWY_AVX3
// The largest magnitude of a block of 32 · k values of bf16, whose bits are compared as they are.
HWY_INLINE float magnitude_of_block(const BFloat16* v, int64_t n) {
  __m512i largest = _mm512_setzero_si512();
  for (int64_t i = 0; i < n; i += 32)
    largest =
        _mm512_max_epu16(largest, _mm512_and_si512(_mm512_loadu_si512(v + i), _mm512_set1_epi16(0x7FFF)));
  const __m256i half =
      _mm256_max_epu16(_mm512_castsi512_si256(largest), _mm512_extracti64x4_epi64(largest, 1));
  const __m128i eight = _mm_max_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  const __m128i least = _mm_minpos_epu16(_mm_xor_si128(eight, _mm_set1_epi16(-1)));
  const uint32_t bits = static_cast<uint32_t>(~_mm_cvtsi128_si32(least) & 0xFFFF) << 16;
  return bits > 0x7F800000u ? std::numeric_limits<float>::quiet_NaN() : std::bit_cast<float>(bits);
}
HWY_INLINE float magnitude_of_block(const float* v, int64_t n) { return magnitude_of(v, n); }

// How many thresholds lie below each of 16 values (15 for NaN), plus 16: from node i of a binary tree to 2i
// or 2i + 1.
class TreeCount {
 public:
  HWY_INLINE explicit TreeCount(const std::array<float, 15>& t)
      : root_(_mm512_set1_ps(t[7])),
        nodes_(_mm512_setr_ps(0, t[7], t[3], t[11], t[1], t[5], t[9], t[13], t[0], t[2], t[4], t[6], t[8],
                              t[10], t[12], t[14])) {}
  HWY_INLINE __m512i operator()(__m512 x) const {
    const __m512i one = _mm512_set1_epi32(1), two = _mm512_set1_epi32(2);
    __m512i node = _mm512_mask_add_epi32(two, _mm512_cmp_ps_mask(x, root_, _CMP_NLE_UQ), two, one);
#pragma GCC unroll 3
    for (int level = 0; level < 3; ++level) {
      const auto above = _mm512_cmp_ps_mask(x, _mm512_permutexvar_ps(node, nodes_), _CMP_NLE_UQ);
      node = _mm512_add_epi32(node, node);
      node = _mm512_mask_add_epi32(node, above, node, one);
    }
    return node;
  }

 private:
  __m512 root_, nodes_;
};

// Full blocks of 64 · k values to 4-bit codes: what encode_one does, value for value.
class FullBlockCoder {
 public:
  explicit FullBlockCoder(const quant::Codebook4& book)
      : count_(book.thresholds),
        order_(_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(book.order.data())))) {
  }
  template <class T>
  HWY_INLINE void operator()(const T* v, int64_t block, float absmax, uint8_t* out) const {
    const hn::FixedTag<float, 16> d;
    const auto factor = hn::Set(d, 1.0f / (absmax < kLeastAbsmax ? kLeastAbsmax : absmax));
    for (int64_t i = 0; i < block; i += 64) {
      const auto sixteen = [&](int64_t at)
                               HWY_ATTR { return count_(hn::Mul(load_f32(d, v + i + at), factor).raw); };
      // Narrowing stays within 16 bytes; the words are put right after it.
      const __m512i bytes = _mm512_packs_epi16(_mm512_packs_epi32(sixteen(0), sixteen(16)),
                                               _mm512_packs_epi32(sixteen(32), sixteen(48)));
      const __m512i sorted = _mm512_permutexvar_epi32(
          _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), bytes);
      const __m512i places = _mm512_and_si512(sorted, _mm512_set1_epi8(15));
      // The first of two codes is the high nibble.
      const __m512i pairs =
          _mm512_maddubs_epi16(_mm512_shuffle_epi8(order_, places), _mm512_set1_epi16(0x0110));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i / 2), _mm512_cvtepi16_epi8(pairs));
    }
  }

 private:
  TreeCount count_;
  __m512i order_;
};
#elif HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
template <class T>
HWY_INLINE float magnitude_of_block(const T* v, int64_t n) {
  return magnitude_of(v, n);
}

// Full blocks of 64 · k values to 4-bit codes, all in registers: what encode_one does, value for value.
class FullBlockCoder {
 public:
  explicit FullBlockCoder(const quant::Codebook4& book) : count_(book.thresholds) {
    alignas(16) uint8_t order[16];  // code of the count whose lowest four bits, 15 taken off, are i
    for (size_t i = 0; i < 16; ++i) order[i] = book.order[(i + 15) % 16];
    order_ = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(order)));
  }
  template <class T>
  HWY_INLINE void operator()(const T* v, int64_t block, float absmax, uint8_t* out) const {
    const auto factor = hn::Set(F32(), 1.0f / (absmax < kLeastAbsmax ? kLeastAbsmax : absmax));
    // Narrowing to 16 and to 8 bits stays within halves; the words are put right after it.
    const auto codes = [&](int64_t at) HWY_ATTR {
      const auto eight = [&](int64_t i)
                             HWY_ATTR { return count_(hn::Mul(load_f32(F32(), v + at + i), factor).raw); };
      const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(eight(0), eight(8)),
                                               _mm256_packs_epi32(eight(16), eight(24)));
      const __m256i sorted = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
      const __m256i places = _mm256_and_si256(sorted, _mm256_set1_epi8(15));
      // The first of two codes is the high nibble.
      return _mm256_maddubs_epi16(_mm256_shuffle_epi8(order_, places), _mm256_set1_epi16(0x0110));
    };
    for (int64_t i = 0; i < block; i += 64) {
      const __m256i packed = _mm256_packus_epi16(codes(i), codes(i + 32));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i / 2), _mm256_permute4x64_epi64(packed, 0xD8));
    }
  }

 private:
  NegativeCount count_;
  __m256i order_;
};
#endif

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
template <class T>
void encode_full_blocks(const quant::Codebook4& book, int64_t block, const T* v, int64_t blocks,
                        uint8_t* codes, float* absmax) {
  const FullBlockCoder code(book);
  // Scales of some blocks first, so that no block's codes wait for its own.
  constexpr int64_t kBlocks = 16;
  for (int64_t i = 0; i < blocks; i += kBlocks) {
    const int64_t end = std::min(blocks, i + kBlocks);
    for (int64_t b = i; b < end; ++b) absmax[b] = magnitude_of_block(v + b * block, block);
    for (int64_t b = i; b < end; ++b) code(v + b * block, block, absmax[b], codes + b * block / 2);
  }
}
#endif

// Whole blocks of a tensor of n values, [begin, end) counted in values; `values` is its first byte.
void encode_codebook_range(const quant::Format& format, int64_t block, DType dtype, const std::byte* values,
                           int64_t begin, int64_t end, uint8_t* codes, float* absmax) {
  const auto bits = static_cast<int>(format.bits);
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
  if (bits == 4 && block % 64 == 0 && dtype != kF16) {
    const int64_t blocks = (end - begin) / block;
    const auto fast = [&](const auto* v) {
      encode_full_blocks(*format.codebook, block, v + begin, blocks, codes + begin / 2,
                         absmax + begin / block);
    };
    if (dtype == kF32)
      fast(reinterpret_cast<const float*>(values));
    else
      fast(reinterpret_cast<const BFloat16*>(values));
    begin += blocks * block;
  }
#endif
  std::vector<float> wide(static_cast<size_t>(block));
  std::vector<uint8_t> scratch(static_cast<size_t>(block) + 32);
  for (int64_t i = begin; i < end; i += block) {
    const int64_t n = std::min(block, end - i);
    convert_values(dtype, values + i * dtype_bytes(dtype), n, kF32,
                   reinterpret_cast<std::byte*>(wide.data()));
    absmax[i / block] =
        encode_one(*format.codebook, bits, wide.data(), n, block, scratch.data(), codes + i * bits / 8);
  }
}

float encode_int8_row(const float* v, int64_t n, int8_t* q) {
  const F32 d;
  const hn::Rebind<int8_t, F32> di8;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const float largest = magnitude_of(v, n), scale = 127.0f / largest;
  const auto most = hn::Set(d, 127.0f);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto x = hn::Round(hn::Mul(hn::LoadU(d, v + i), hn::Set(d, scale)));
    hn::StoreU(hn::DemoteTo(di8, hn::ConvertTo(I32(), hn::IfThenElseZero(hn::Le(hn::Abs(x), most), x))), di8,
               q + i);
  }
  for (; i < n; ++i) {
    const float x = std::nearbyint(v[i] * scale);
    q[i] = std::abs(x) <= 127.0f ? static_cast<int8_t>(x) : int8_t{0};
  }
  return largest;
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::backend::cpu {
namespace {

HWY_EXPORT(encode_codebook_range);
HWY_EXPORT(encode_int8_row);

constexpr int64_t kGrain = 1 << 16;

void encode_int8(const Tensor& values, quant::Weight& out) {
  const int64_t cols = out.cols(), row_bytes = cols * dtype_bytes(values.dtype());
  auto* codes = out.codes.data<int8_t>();
  auto* absmax = out.absmax.data<float>();
  parallel_for(out.rows(), std::max<int64_t>(1, kGrain / std::max<int64_t>(cols, 1)),
               [&](int64_t begin, int64_t end) {
                 std::vector<float> wide(static_cast<size_t>(cols));
                 for (int64_t r = begin; r < end; ++r) {
                   convert_values(values.dtype(), values.raw() + r * row_bytes, cols, kF32,
                                  reinterpret_cast<std::byte*>(wide.data()));
                   absmax[r] = HWY_DYNAMIC_DISPATCH(encode_int8_row)(wide.data(), cols, codes + r * cols);
                 }
               });
}

void encode_k_quant(const Tensor& values, quant::Weight& out) {
  const GgmlBlock block = ggml_block(out.ggml_type);
  parallel_for(values.numel() / block.values, 16, [&](int64_t begin, int64_t end) {
    std::vector<float> wide(static_cast<size_t>((end - begin) * block.values));
    convert_values(values.dtype(), values.raw() + begin * block.values * dtype_bytes(values.dtype()),
                   (end - begin) * block.values, kF32, reinterpret_cast<std::byte*>(wide.data()));
    quant::encode_ggml(out.ggml_type, wide, out.blocks.raw() + begin * block.bytes);
  });
}

}  // namespace

void encode_weight(Stream&, const Tensor& values, quant::Weight& out) {
  const DType dtype = values.dtype();
  require(dtype == kF32 || dtype == kF16 || dtype == kBF16, "encode_weight",
          "expected f32, f16 or bf16 values, got {}", dtype_name(dtype));
  require(values.numel() == out.numel(), "encode_weight", "{} values for a weight {}", values.shape(),
          out.shape);
  quant::require_consistent(out, "encode_weight");
  if (out.format->kind == quant::Kind::kInt8Row) return encode_int8(values, out);
  if (out.format->kind == quant::Kind::kGgml) return encode_k_quant(values, out);
  require(out.format->has_block_scales(), "encode_weight", "cannot encode to {}", out.format->name);

  const int64_t n = values.numel(), block = out.block;
  auto* codes = out.codes.data<uint8_t>();
  std::vector<float> first_level(out.double_quantized() ? static_cast<size_t>(out.block_count()) : 0);
  float* absmax = out.double_quantized() ? first_level.data() : out.absmax.data<float>();
  parallel_for(n, std::max(block, kGrain / block * block), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(encode_codebook_range)
    (*out.format, block, dtype, values.raw(), begin, end, codes, absmax);
  });
  if (out.double_quantized())
    out.nested_offset = quant::double_quantize(first_level, out.absmax_codes.data<uint8_t>(),
                                               out.nested_absmax.data<float>());
}

}  // namespace nibble::backend::cpu
#endif  // HWY_ONCE
