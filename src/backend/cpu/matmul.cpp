#include "backend/cpu/matmul.h"

#include <cstring>

#include "backend/cpu/kernels.h"

namespace nibble::backend {

DType product_dtype(Device, DType compute) { return compute; }

namespace cpu {

void matmul(Stream& stream, const Tensor& a, const Tensor& b, Tensor& c, MatmulArgs args) {
  for (const Tensor* t : {&a, &b, static_cast<const Tensor*>(&c)})
    require(t->dtype() == kF32 || t->dtype() == kBF16, "matmul", "expected f32 or bf16, got {}",
            dtype_name(t->dtype()));
  Product p;
  p.m = c.shape()[0];
  p.n = c.shape()[1];
  p.k = args.transpose_a ? a.shape()[0] : a.shape()[1];
  if (p.m == 0 || p.n == 0) return;
  if (p.k == 0) {
    if (!args.accumulate) std::memset(c.raw(), 0, static_cast<size_t>(c.bytes()));
    return;
  }
  p.a = {a.raw(), a.dtype(), a.shape()[1], args.transpose_a};
  p.b = {b.raw(), b.dtype(), b.shape()[1], args.transpose_b};
  p.c = c.raw();
  p.c_dtype = c.dtype();
  p.ldc = p.n;
  p.alpha = args.alpha;
  p.accumulate = args.accumulate;
  multiply_f32(stream, p);
}

}  // namespace cpu
}  // namespace nibble::backend
