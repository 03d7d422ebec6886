#include "backend/weight_lease.h"

#include "backend/kernels/matmul.h"
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

bool multiplies_in_fixed_point(const quant::Weight& weight, Device device, DType compute) {
  return (!weight.is_dense() || weight.beside_quantized) && weight.rows() % 2 == 0 &&
         weight.cols() % 2 == 0 && multiplies_in_fixed_point(device, compute);
}

ProductLease::ProductLease(Stream& stream, const quant::Weight& weight, DType compute)
    : fixed_point_(multiplies_in_fixed_point(weight, stream.device(), compute)) {
  if (fixed_point_ && weight.format->kind == quant::Kind::kInt8Row) {
    values_ = weight.codes;
    absmax_ = &weight.absmax;
  } else {
    decode(stream, weight, product_dtype(stream.device(), compute));
  }
}

}  // namespace nibble::backend
