#include <algorithm>
#include <numeric>

#include "backend/kernels/cast.h"
#include "backend/kernels/quantize.h"

namespace nibble::backend {
namespace {

// Rows of one chunk: about a million values, and whole blocks so that chunks are encoded independently.
int64_t chunk_rows(int64_t rows, int64_t cols, int64_t block) {
  const int64_t step = block == 0 ? 1 : block / std::gcd(block, std::max<int64_t>(cols, 1));
  const int64_t wanted = std::max<int64_t>(1, (int64_t{1} << 20) / std::max<int64_t>(cols, 1));
  return std::min(rows, (wanted + step - 1) / step * step);
}

Tensor named(Allocator& allocator, const Shape& shape, DType dtype, std::string_view name,
             std::string_view part) {
  return Tensor::empty(allocator, shape, dtype, std::string(name) + std::string(part));
}

quant::Weight convert_to_dense(Stream& stream, const quant::Weight& w, DType dtype, std::string_view name) {
  if (w.is_dense() && w.dense.dtype() == dtype && w.interleaved_heads == 0) return w;
  quant::Weight out = quant::dense_weight(Tensor::empty(stream.allocator(), w.shape, dtype, name));
  out.logical_dtype = w.logical_dtype;
  if (w.rows() == 0) return out;
  if (w.is_dense() && w.interleaved_heads == 0)
    cast(stream, w.dense, out.dense);
  else
    decode_weight(stream, w, 0, w.rows(), out.dense);
  return out;
}

}  // namespace

quant::Weight allocate_weight(Allocator& allocator, const Shape& shape, const quant::QuantizeSpec& spec,
                              DType logical_dtype, std::string_view name) {
  quant::Weight w;
  if (spec.format == nullptr) {
    w = quant::dense_weight(Tensor::empty(allocator, shape, logical_dtype, name));
    return w;
  }
  w.shape = shape;
  w.format = spec.format;
  w.logical_dtype = logical_dtype;
  if (spec.format->kind == quant::Kind::kInt8Row) {
    w.codes = named(allocator, shape, kI8, name, ".codes");
    w.absmax = named(allocator, {shape[0]}, kF32, name, ".absmax");
    return w;
  }
  if (spec.format->kind == quant::Kind::kGgml) {
    w.ggml_type = spec.format->ggml_type;
    w.blocks = named(allocator, {quant::ggml_bytes(*spec.format, shape)}, kU8, name, ".blocks");
    return w;
  }
  require(spec.format->has_block_scales(), "quantize", "cannot encode to {}", spec.format->name);
  w.block = spec.block;
  w.codes = named(allocator, {spec.format->code_bytes(shape.numel())}, kU8, name, ".codes");
  if (!spec.double_quant) {
    w.absmax = named(allocator, {w.block_count()}, kF32, name, ".absmax");
    return w;
  }
  w.absmax_codes = named(allocator, {w.block_count()}, kU8, name, ".absmax");
  w.nested_absmax = named(allocator, {(w.block_count() + 255) / 256}, kF32, name, ".nested_absmax");
  const auto map = quant::dynamic_map_signed();
  w.nested_map = named(allocator, {256}, kF32, name, ".nested_map");
  if (allocator.device() == Device::kCpu) std::copy(map.begin(), map.end(), w.nested_map.data<float>());
  return w;
}

quant::Weight convert_weight(Stream& stream, const quant::Weight& w, const quant::QuantizeSpec& spec,
                             DType dense_dtype, std::string_view name) {
  require(w.defined(), "quantize", "{} has no values", name);
  const bool keep = spec.stored && !w.is_dense();
  if (keep) return w;
  if (spec.format == nullptr) return convert_to_dense(stream, w, dense_dtype, name);
  const bool blocks = spec.format->has_block_scales();
  if (w.format == spec.format &&
      (!blocks || (w.block == spec.block && w.double_quantized() == spec.double_quant)))
    return w;

  quant::Weight out = allocate_weight(stream.allocator(), w.shape, spec, w.logical_dtype, name);
  const int64_t rows = w.rows(), cols = rows == 0 ? 0 : w.numel() / rows;
  if (w.numel() == 0) return out;
  const GgmlBlock ggml = ggml_block(out.ggml_type);
  const bool k_quant = spec.format->kind == quant::Kind::kGgml;
  const int64_t step = chunk_rows(rows, cols, k_quant ? ggml.values : out.block);
  // Double quantization needs the mean of all block scales: they are gathered first.
  Tensor absmax = out.double_quantized()
                      ? named(stream.allocator(), {out.block_count()}, kF32, name, ".absmax (temporary)")
                      : out.absmax;
  const bool direct = w.is_dense() && w.interleaved_heads == 0;
  Tensor scratch = direct ? Tensor() : named(stream.allocator(), {step, cols}, kF32, name, " (temporary)");
  for (int64_t begin = 0; begin < rows; begin += step) {
    const int64_t end = std::min(rows, begin + step);
    Tensor values = direct ? w.dense.rows(begin, end) : scratch.rows(0, end - begin);
    if (!direct) decode_weight(stream, w, begin, end, values);
    quant::Weight part;
    part.shape = Shape{end - begin, cols};
    part.format = out.format;
    part.block = out.block;
    const int64_t from = begin * cols, until = end * cols;
    if (k_quant) {
      part.ggml_type = out.ggml_type;
      part.blocks = out.blocks.rows(from / ggml.values * ggml.bytes, until / ggml.values * ggml.bytes);
    } else {
      part.codes = blocks ? out.codes.rows(out.format->code_bytes(from), out.format->code_bytes(until))
                          : out.codes.rows(begin, end);
      part.absmax = blocks ? absmax.rows(from / out.block, (until + out.block - 1) / out.block)
                           : absmax.rows(begin, end);
    }
    encode_weight(stream, values, part);
  }
  if (out.double_quantized() && stream.device() == Device::kCpu)
    out.nested_offset =
        quant::double_quantize({absmax.data<float>(), static_cast<size_t>(absmax.numel())},
                               out.absmax_codes.data<uint8_t>(), out.nested_absmax.data<float>());
  return out;
}

}  // namespace nibble::backend
