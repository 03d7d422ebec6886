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

ProductLease::ProductLease(Stream& stream, const quant::Weight& weight, DType compute) {
  if (weight.format->kind == quant::Kind::kInt8Row && weight.rows() % 2 == 0 && weight.cols() % 2 == 0 &&
      multiplies_int8(stream.device(), compute)) {
    values_ = weight.codes;
    absmax_ = &weight.absmax;
  } else {
    decode(stream, weight, product_dtype(stream.device(), compute));
  }
}

}  // namespace nibble::backend
