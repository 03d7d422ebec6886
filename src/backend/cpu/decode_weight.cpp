#include "backend/cpu/block_scales.h"
#include "backend/cpu/convert.h"
#include "backend/cpu/decode_row.h"
#include "backend/cpu/gemm_step.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/simd_targets.h"
#include "base/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/decode_weight.cpp"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway wants it:
#include "backend/cpu/codebook-inl.h"
#include "backend/cpu/ggml-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

// Scales of `count` blocks from `block` on.
void scales_of_blocks(const BlockScales& scales, int64_t block, int64_t count, float* absmax) {
  int64_t b = 0;
#if HWY_TARGET == HWY_AVX3
  if (scales.codes() != nullptr)
    for (; b + 16 <= count && (block + b) % 256 <= 256 - 16; b += 16) {
      const hn::FixedTag<float, 16> d;
      const __m512i at =
          _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(scales.codes() + block + b)));
      const hn::Vec<decltype(d)> nested{_mm512_i32gather_ps(at, scales.nested_map(), 4)};
      hn::StoreU(
          hn::Add(hn::Mul(nested, hn::Set(d, scales.nested_absmax(block + b))), hn::Set(d, scales.offset())),
          d, absmax + b);
    }
#endif
  for (; b < count; ++b) absmax[b] = scales[block + b];
}

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
// Neighbouring blocks of 64 values; absmax: whole vectors of 16.
void decode_blocks_of_64(const std::array<float, 16>& values, const float* absmax, const uint8_t* codes,
                         int64_t count, BFloat16* out) {
  int64_t b = 0;
#if HWY_TARGET == HWY_AVX3
  const hn::FixedTag<float, 16> d;
  bool within = bf16_step() == Step::kPair;
  for (int64_t i = 0; i < count; i += 16) {
    const auto here = hn::FirstN(d, static_cast<size_t>(count - i));
    const auto x = hn::Abs(hn::IfThenElse(here, hn::LoadU(d, absmax + i), hn::Set(d, 1.0f)));
    within &= hn::AllTrue(d, hn::Ge(x, hn::Set(d, WideTable::kLeastScale)));
  }
  if (within) {
    const auto table = hn::LoadU(d, values.data());
    for (; b < count; ++b) WideTable(table, absmax[b]).lookup(codes + 32 * b, out + 64 * b);
  }
#endif
  for (; b < count; ++b) WideTable(values, absmax[b]).lookup(codes + 32 * b, out + 64 * b);
}
#endif

template <class T>
void decode_codebook_range(const quant::Weight& w, int64_t begin, int64_t end, T* out) {
  const BlockScales scales(w);
  const auto* codes = reinterpret_cast<const uint8_t*>(w.codes.raw());
  // Scales of some blocks at once: a block's own look-ups take longer than its values.
  constexpr int64_t kBlocks = 64;
  float absmax[kBlocks];
  for (int64_t i = begin, block = begin / w.block; i < end; block += kBlocks) {
    const int64_t count = std::min(kBlocks, (end - 1) / w.block - block + 1);
    scales_of_blocks(scales, block, count, absmax);
    int64_t b = 0;
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
    if constexpr (std::is_same_v<T, BFloat16>)
      if (w.block == 64 && i % 64 == 0) {  // the usual block, without decode_block's questions
        const int64_t whole = std::min(count, (end - i) / 64);
        decode_blocks_of_64(w.format->codebook->values, absmax, codes + i / 2, whole, out + (i - begin));
        b = whole;
        i += whole * 64;
      }
#endif
    for (; b < count; ++b) {
      const int64_t stop = std::min(end, (block + b + 1) * w.block);
      decode_block(*w.format->codebook, absmax[b], codes, i, stop, out + (i - begin));
      i = stop;
    }
  }
}

template <class T>
void decode_int8(const quant::Weight& w, int64_t row, int64_t begin, int64_t end, T* out) {
  constexpr float kUnit = 7.874015718698502e-3f;  // 1 / 127
  const F32 d;
  const int64_t cols = end - begin;
  const auto* q = reinterpret_cast<const uint8_t*>(w.codes.raw()) + row * w.cols() + begin;
  const auto absmax = quant::load_at<float>(w.absmax.raw(), row);
  int64_t i = 0;
  for (; i + kLanes <= cols; i += kLanes) {
    const auto v = hn::Mul(as_f32(signed_bytes_as_i32(q + i)), hn::Set(d, absmax));
    store_f32(d, hn::Mul(v, hn::Set(d, kUnit)), out + i);
  }
  for (; i < cols; ++i) narrow(static_cast<float>(static_cast<int8_t>(q[i])) * absmax * kUnit, out + i);
}

template <class Block, class T>
void decode_blocks(const uint8_t* row, int64_t cols, T* out) {
  for (int64_t i = 0; i < cols; i += Block::kValues, row += Block::kBytes)
    Block::decode(row, [&](int at, VF32 v) HWY_ATTR { store_f32(F32(), v, out + i + at); });
}

template <class T>
void decode_ggml(uint32_t type, const std::byte* row, int64_t cols, T* out) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(row);
  switch (static_cast<GgmlType>(type)) {
    case GgmlType::kQ4_0:
      return decode_blocks<Q4_0>(bytes, cols, out);
    case GgmlType::kQ4_1:
      return decode_blocks<Q4_1>(bytes, cols, out);
    case GgmlType::kQ8_0:
      return decode_blocks<Q8_0>(bytes, cols, out);
    case GgmlType::kQ4_K:
      return decode_blocks<Q4_K>(bytes, cols, out);
    case GgmlType::kQ6_K:
      return decode_blocks<Q6_K>(bytes, cols, out);
    default:
      break;
  }
  // The rarer types: the scalar decoder, a stretch of blocks at a time.
  constexpr int64_t kStretch = 1024;
  float values[kStretch];
  const GgmlBlock block = ggml_block(type);
  for (int64_t i = 0; i < cols; i += kStretch) {
    const int64_t n = std::min(kStretch, cols - i);
    quant::decode_ggml_row(type, row + i / block.values * block.bytes, n, values);
    convert(values, n, out + i);
  }
}

// Values [begin, end) of the row-major order by the scalar decoders, a stretch at a time: codes of 2 and 3
// bits, and blocks that straddle rows.
template <class T>
void decode_scalar(const quant::Weight& w, int64_t begin, int64_t end, T* out) {
  constexpr int64_t kStretch = 1024;
  float values[kStretch];
  for (int64_t i = begin; i < end; i += kStretch) {
    const int64_t n = std::min(kStretch, end - i);
    if (w.format->has_block_scales())
      quant::decode_codebook(w, i, i + n, values);
    else
      quant::decode_ggml(w, i, i + n, values);
    convert(values, n, out + (i - begin));
  }
}

// Columns [begin, end) of logical row r of anything but a dense weight.
template <class T>
void decode_columns(const quant::Weight& w, int64_t r, int64_t begin, int64_t end, T* out) {
  const int64_t cols = w.numel() / w.rows();
  const bool straddles = w.format->kind == quant::Kind::kGgml && w.interleaved_heads == 0 &&
                         cols % ggml_block(w.ggml_type).values != 0;
  if (straddles || w.format->kind == quant::Kind::kCodebookLow) {
    decode_scalar(w, r * cols + begin, r * cols + end, out);
  } else if (w.format->kind == quant::Kind::kCodebook4) {
    decode_codebook_range(w, r * cols + begin, r * cols + end, out);
  } else if (w.format->kind == quant::Kind::kInt8Row) {
    decode_int8(w, r, begin, end, out);
  } else {
    const GgmlBlock block = ggml_block(w.ggml_type);
    const int64_t first = (w.ggml_row(r) * cols + begin) / block.values;
    decode_ggml(w.ggml_type, w.blocks.raw() + first * block.bytes, end - begin, out);
  }
}

template <class T>
void decode_range(const quant::Weight& w, int64_t begin, int64_t end, T* out) {
  const int64_t cols = w.numel() / w.rows();
  if (w.format->kind == quant::Kind::kCodebook4)
    return decode_codebook_range(w, begin * cols, end * cols, out);
  for (int64_t r = begin; r < end; ++r, out += cols) decode_columns(w, r, 0, cols, out);
}

void decode_weight_range(const quant::Weight& w, int64_t begin, int64_t end, DType dtype, std::byte* out) {
  if (dtype == kF32)
    decode_range(w, begin, end, reinterpret_cast<float*>(out));
  else
    decode_range(w, begin, end, reinterpret_cast<BFloat16*>(out));
}

void decode_weight_columns(const quant::Weight& w, int64_t row, int64_t begin, int64_t end, float* out) {
  decode_columns(w, row, begin, end, out);
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::backend::cpu {

HWY_EXPORT(decode_weight_range);
HWY_EXPORT(decode_weight_columns);

void decode_row_part(const quant::Weight& w, int64_t row, int64_t begin, int64_t end, float* out) {
  HWY_DYNAMIC_DISPATCH(decode_weight_columns)(w, row, begin, end, out);
}

void decode_weight(Stream&, const quant::Weight& w, int64_t begin, int64_t end, Tensor& out) {
  require(0 <= begin && begin <= end && end <= w.rows(), "decode_weight", "rows {} to {} of {}", begin, end,
          w.shape);
  if (begin == end) return;
  const int64_t cols = w.numel() / w.rows();
  const DType dtype = out.dtype();
  require(dtype == kF32 || dtype == kBF16, "decode_weight", "decodes to f32 or bf16, not {}",
          dtype_name(dtype));
  require(out.numel() == (end - begin) * cols, "decode_weight", "{} rows of {} into {}", end - begin, w.shape,
          out.shape());
  std::byte* to = out.raw();
  const int64_t row_bytes = cols * dtype_bytes(dtype);
  const int64_t grain = std::max<int64_t>(1, (1 << 16) / std::max<int64_t>(cols, 1));
  parallel_for(end - begin, grain, [&](int64_t from, int64_t until) {
    std::byte* at = to + from * row_bytes;
    if (!w.is_dense())
      return HWY_DYNAMIC_DISPATCH(decode_weight_range)(w, begin + from, begin + until, dtype, at);
    const DType stored = w.dense.dtype();
    if (w.interleaved_heads == 0) {
      convert_values(stored, w.dense.raw() + (begin + from) * cols * dtype_bytes(stored),
                     (until - from) * cols, dtype, at);
      return;
    }
    for (int64_t r = from; r < until; ++r, at += row_bytes)
      convert_values(stored, w.dense.raw() + w.ggml_row(begin + r) * cols * dtype_bytes(stored), cols, dtype,
                     at);
  });
}

}  // namespace nibble::backend::cpu
#endif  // HWY_ONCE
