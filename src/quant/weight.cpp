#include "quant/weight.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "quant/parts.h"

namespace nibble::quant {
namespace {

using BlockDecoder = void (*)(const std::byte*, float*);

BlockDecoder block_decoder(uint32_t type) {
  switch (static_cast<GgmlType>(type)) {
    case GgmlType::kQ4_0:
      return decode_q4_0;
    case GgmlType::kQ4_1:
      return decode_q4_1;
    case GgmlType::kQ5_0:
      return decode_q5_0;
    case GgmlType::kQ5_1:
      return decode_q5_1;
    case GgmlType::kQ8_0:
      return decode_q8_0;
    case GgmlType::kQ2_K:
      return decode_q2_k;
    case GgmlType::kQ3_K:
      return decode_q3_k;
    case GgmlType::kQ4_K:
      return decode_q4_k;
    case GgmlType::kQ5_K:
      return decode_q5_k;
    case GgmlType::kQ6_K:
      return decode_q6_k;
    default:
      return nullptr;
  }
}

DType ggml_dense_dtype(uint32_t type) {
  return type == static_cast<uint32_t>(GgmlType::kF32)   ? kF32
         : type == static_cast<uint32_t>(GgmlType::kF16) ? kF16
                                                         : kBF16;
}

bool ggml_dense(uint32_t type) {
  return type == static_cast<uint32_t>(GgmlType::kF32) || type == static_cast<uint32_t>(GgmlType::kF16) ||
         type == static_cast<uint32_t>(GgmlType::kBF16);
}

void widen(DType dtype, const std::byte* from, int64_t n, float* out) {
  if (dtype == kF32) std::memcpy(out, from, static_cast<size_t>(n) * 4);
  if (dtype == kF16)
    for (int64_t i = 0; i < n; ++i) out[i] = to_float(Float16{load_at<uint16_t>(from, i)});
  if (dtype == kBF16)
    for (int64_t i = 0; i < n; ++i) out[i] = to_float(BFloat16{load_at<uint16_t>(from, i)});
}

void require_part(const Tensor& part, std::string_view name, DType dtype, int64_t count, const Weight& w,
                  std::string_view where) {
  require(part.defined() && part.dtype() == dtype && part.numel() == count, where,
          "{} of a {} weight {} should be {} {}, got {}", name, w.describe(), w.shape, count,
          dtype_name(dtype),
          part.defined() ? fmt::format("{} {}", part.numel(), dtype_name(part.dtype())) : "none");
}

}  // namespace

int64_t Weight::stored_bytes() const {
  int64_t sum = double_quantized() ? 4 : 0;  // the offset
  for (const Tensor* t : {&dense, &codes, &absmax, &absmax_codes, &nested_absmax, &nested_map, &blocks})
    if (t->defined()) sum += t->bytes();
  return sum;
}

int64_t Weight::ggml_row(int64_t r) const {
  if (interleaved_heads == 0) return r;
  const int64_t width = rows() / interleaved_heads, half = width / 2;
  const int64_t head = r / width, within = r % width;
  return head * width + within % half * 2 + within / half;
}

std::string Weight::describe() const {
  if (!defined()) return "undefined";
  if (is_dense()) return dtype_name(dense.dtype());
  std::string s = format->name;
  if (double_quantized()) s += " + double quantization";
  if (format->has_block_scales()) s += fmt::format(", block {}", block);
  return s;
}

Weight dense_weight(Tensor t) {
  require(t.dtype() == kF32 || t.dtype() == kF16 || t.dtype() == kBF16, "weight",
          "dense weights are f32, f16 or bf16, got {} {}", dtype_name(t.dtype()), t.shape());
  Weight w;
  w.shape = t.shape();
  w.format = &dense_format();
  w.logical_dtype = t.dtype();
  w.dense = std::move(t);
  return w;
}

Weight ggml_weight(uint32_t type, const Shape& shape, Tensor blocks, int64_t interleaved_heads) {
  const Format& format = ggml_format(type);
  const GgmlBlock block = ggml_block(type);
  require(shape.rank() >= 1 && shape.last() % block.values == 0, "gguf",
          "{} {} does not consist of whole blocks of {} values", format.name, shape, block.values);
  const int64_t bytes = shape.numel() / block.values * block.bytes;
  require(blocks.dtype() == kU8 && blocks.numel() == bytes, "gguf", "{} {} takes {} bytes, got {}",
          format.name, shape, bytes, blocks.bytes());
  require(interleaved_heads == 0 ||
              (interleaved_heads > 0 && shape.rank() == 2 && shape[0] % (2 * interleaved_heads) == 0),
          "gguf", "the rows of {} cannot be those of {} heads with rotary pairs", shape, interleaved_heads);
  Weight w;
  w.shape = shape;
  w.interleaved_heads = interleaved_heads;
  w.logical_dtype = ggml_dense(type) ? ggml_dense_dtype(type) : kF32;
  if (ggml_dense(type)) {
    w.format = &dense_format();
    w.dense = Tensor::borrow(blocks.raw(), shape, w.logical_dtype, std::make_shared<Tensor>(blocks));
    return w;
  }
  w.format = &format;
  w.ggml_type = type;
  w.blocks = std::move(blocks);
  return w;
}

void require_consistent(const Weight& w, std::string_view where) {
  require(w.defined() && w.shape.rank() >= 1, where, "a weight without format or shape");
  switch (w.format->kind) {
    case Kind::kDense:
      require(w.dense.defined() && w.dense.shape() == w.shape, where,
              "values of a dense weight should be {}, got {}", w.shape, w.dense.shape());
      break;
    case Kind::kInt8Row:
      require_part(w.codes, "the codes", kI8, w.numel(), w, where);
      require_part(w.absmax, "SCB", kF32, w.rows(), w, where);
      break;
    case Kind::kCodebook4:
    case Kind::kCodebookLow:
      require(w.block >= 2 && w.block % (w.format->kind == Kind::kCodebook4 ? 2 : 8) == 0, where,
              "block size {} of a {} weight does not fill whole bytes", w.block, w.format->name);
      require_part(w.codes, "the codes", kU8, w.format->code_bytes(w.numel()), w, where);
      if (w.double_quantized()) {
        require_part(w.absmax_codes, "absmax", kU8, w.block_count(), w, where);
        require_part(w.nested_absmax, "nested_absmax", kF32, (w.block_count() + 255) / 256, w, where);
        require_part(w.nested_map, "nested_quant_map", kF32, 256, w, where);
      } else {
        require_part(w.absmax, "absmax", kF32, w.block_count(), w, where);
      }
      break;
    case Kind::kGgml:
      require_part(w.blocks, "the blocks", kU8,
                   w.numel() / ggml_block(w.ggml_type).values * ggml_block(w.ggml_type).bytes, w, where);
      break;
  }
}

void decode_rows(const Weight& w, int64_t begin, int64_t end, float* out) {
  require(w.defined() && 0 <= begin && begin <= end && end <= w.rows(), "decode", "rows {} to {} of {}",
          begin, end, w.shape);
  const int64_t cols = w.rows() == 0 ? 0 : w.numel() / w.rows();
  if (w.format->has_block_scales()) return decode_codebook(w, begin * cols, end * cols, out);
  if (w.format->kind == Kind::kGgml && w.interleaved_heads == 0)
    return decode_ggml(w, begin * cols, end * cols, out);
  for (int64_t r = begin; r < end; ++r, out += cols) {
    const int64_t stored = w.ggml_row(r);
    switch (w.format->kind) {
      case Kind::kDense:
        widen(w.dense.dtype(), w.dense.raw() + stored * cols * dtype_bytes(w.dense.dtype()), cols, out);
        break;
      case Kind::kInt8Row:
        decode_int8_row(w, r, out);
        break;
      default:
        decode_ggml(w, stored * cols, (stored + 1) * cols, out);
    }
  }
}

void decode_ggml(const Weight& w, int64_t begin, int64_t end, float* out) {
  const GgmlBlock block = ggml_block(w.ggml_type);
  for (int64_t i = begin; i < end;) {
    const std::byte* at = w.blocks.raw() + i / block.values * block.bytes;
    const int64_t within = i % block.values;
    if (within == 0 && end - i >= block.values) {
      const int64_t whole = (end - i) / block.values * block.values;
      decode_ggml_row(w.ggml_type, at, whole, out);
      i += whole, out += whole;
      continue;
    }
    float values[256];  // the end of one block or the beginning of another
    decode_ggml_row(w.ggml_type, at, block.values, values);
    const int64_t count = std::min(end - i, block.values - within);
    std::copy_n(values + within, count, out);
    i += count, out += count;
  }
}

void decode_ggml_row(uint32_t type, const std::byte* row, int64_t cols, float* out) {
  if (ggml_dense(type)) return widen(ggml_dense_dtype(type), row, cols, out);
  const BlockDecoder decode = block_decoder(type);
  if (decode == nullptr) ggml_format(type);  // throws: it names what can be decoded
  const GgmlBlock block = ggml_block(type);
  for (int64_t i = 0; i < cols; i += block.values, row += block.bytes) decode(row, out + i);
}

bool ggml_decodable(uint32_t type) { return ggml_dense(type) || block_decoder(type) != nullptr; }

int64_t ggml_bytes(const Format& format, const Shape& shape) {
  const GgmlBlock block = ggml_block(format.ggml_type);
  require(shape.numel() % block.values == 0, "quantize",
          "a weight {} does not fill blocks of {} values, which {} consists of; choose a format such as nf4",
          shape, block.values, format.name);
  return shape.numel() / block.values * block.bytes;
}

Weight encode(const Format& format, std::span<const float> values, const Shape& shape, int64_t block,
              bool double_quant) {
  require(static_cast<int64_t>(values.size()) == shape.numel() && shape.rank() >= 1, "quantize",
          "{} values for a weight {}", values.size(), shape);
  Weight w;
  w.shape = shape;
  w.format = &format;
  const int64_t n = shape.numel();
  if (format.kind == Kind::kInt8Row) {
    w.codes = Tensor::empty(host_allocator(), shape, kI8, "weight.codes");
    w.absmax = Tensor::empty(host_allocator(), {shape[0]}, kF32, "weight.absmax");
    encode_int8(values, w);
    return w;
  }
  if (format.kind == Kind::kGgml) {
    w.ggml_type = format.ggml_type;
    w.blocks = Tensor::empty(host_allocator(), {ggml_bytes(format, shape)}, kU8, "weight.blocks");
    encode_ggml(format.ggml_type, values, w.blocks.raw());
    return w;
  }
  require(format.has_block_scales() && block >= 8 && block % 8 == 0, "quantize",
          "cannot encode to {} with block size {}", format.name, block);
  w.block = block;
  w.codes = Tensor::empty(host_allocator(), {format.code_bytes(n)}, kU8, "weight.codes");
  w.absmax = Tensor::empty(host_allocator(), {w.block_count()}, kF32, "weight.absmax");
  encode_codebook(values, w);
  if (double_quant) double_quantize(w);
  return w;
}

Distortion distortion(std::span<const float> values, std::span<const float> decoded) {
  require(values.size() == decoded.size(), "distortion", "{} values but {} decoded ones", values.size(),
          decoded.size());
  Distortion d;
  double error = 0, power = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double e = double{decoded[i]} - double{values[i]};
    error += e * e;
    power += double{values[i]} * double{values[i]};
    d.max_abs = std::max(d.max_abs, std::abs(e));
  }
  if (values.empty()) return d;
  d.rmse = std::sqrt(error / static_cast<double>(values.size()));
  d.relative = power > 0 ? std::sqrt(error / power) : error > 0 ? HUGE_VAL : 0;
  d.snr_db = error > 0 ? 10 * std::log10(power / error) : HUGE_VAL;
  return d;
}

}  // namespace nibble::quant
