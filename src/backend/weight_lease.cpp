#include "backend/weight_lease.h"

#include "backend/kernels/quantize.h"

namespace nibble::backend {

WeightLease::WeightLease(Stream& stream, const quant::Weight& weight, DType dtype) {
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

}  // namespace nibble::backend
