#include "backend/weight_lease.h"

#include "backend/kernels/quantize.h"

namespace nibble::backend {

WeightLease::WeightLease(Stream& stream, const quant::Weight& weight, DType dtype) {
  decode(stream, weight, dtype);
}

void WeightLease::decode(Stream& stream, const quant::Weight& weight, DType dtype) {
  if (weight.is_dense() && weight.dense.dtype() == dtype && weight.interleaved_heads == 0) {
    values_ = weight.dense;
    return;
  }
  const auto bytes = static_cast<size_t>(weight.numel() * dtype_bytes(dtype));
  std::byte* data = stream.scratch(Stream::kWeightSlot, bytes);
  values_ =
      Tensor(std::make_shared<Buffer>(Buffer{data, bytes, stream.device(), nullptr}), weight.shape, dtype);
  decode_weight(stream, weight, 0, weight.rows(), values_);
}

FixedPoint fixed_point_of(const quant::Weight& weight, Device device, DType compute) {
  if (weight.is_dense() && !weight.beside_quantized) return FixedPoint::kNone;
  const FixedPoint f = fixed_point_of(
      device, compute, weight.format != nullptr && weight.format->kind == quant::Kind::kInt8Row);
  const int64_t step = f == FixedPoint::kByte ? 4 : 2;
  return weight.rows() % step == 0 && weight.cols() % step == 0 ? f : FixedPoint::kNone;
}

ProductLease::ProductLease(Stream& stream, const quant::Weight& weight, DType compute)
    : fixed_point_(fixed_point_of(weight, stream.device(), compute)) {
  if (fixed_point_ != FixedPoint::kNone && weight.format->kind == quant::Kind::kInt8Row) {
    values_ = weight.codes;
    absmax_ = &weight.absmax;
  } else {
    decode(stream, weight, product_dtype(stream.device(), compute));
  }
}

}  // namespace nibble::backend
