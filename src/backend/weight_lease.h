// acquire / release of a weight's values for a product: a dense weight of the wanted type is lent as it is,
// anything else is decoded into the stream's one weight scratch. One lease may be alive at a time per stream,
// unless it lent the weight's own memory. Source: DESIGN idea 1; later also the place of host offload and
// prefetch.
#pragma once
#include "backend/kernels/matmul.h"
#include "backend/stream.h"
#include "quant/weight.h"

namespace nibble::backend {

class WeightLease {
 public:
  // Values as `dtype` (F32 or BF16), row-major [out, in] in logical row order. Null data on the meta device.
  WeightLease(Stream& stream, const quant::Weight& weight, DType dtype);
  const Tensor& values() const { return values_; }

 protected:
  WeightLease() = default;
  void decode(Stream& stream, const quant::Weight& weight, DType dtype);
  Tensor values_;
};

// A lease for matmul() and low_rank_matmul(): what they are to be told of the weight comes with it. In
// fixed point an int8 weight lends its codes, and absmax() is then what goes with them (null otherwise).
class ProductLease : public WeightLease {
 public:
  ProductLease(Stream& stream, const quant::Weight& weight, DType compute);
  const Tensor* absmax() const { return absmax_; }
  FixedPoint fixed_point() const { return fixed_point_; }

 private:
  const Tensor* absmax_ = nullptr;  // of the weight
  FixedPoint fixed_point_;
};

// ProductLease::fixed_point() before there is one.
FixedPoint fixed_point_of(const quant::Weight& weight, Device device, DType compute);

}  // namespace nibble::backend
