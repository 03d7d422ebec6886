#include <dnnl.h>
#include <omp.h>

#include "backend/cpu/dispatch.h"
#include "backend/cpu/kernels.h"
#include "base/parallel.h"

namespace nibble::backend {

DType product_dtype(Device, DType) { return kF32; }

namespace cpu {
namespace {

const float* as_f32(Stream& stream, const Tensor& t, int slot) {
  if (t.dtype() == kF32) return t.data<float>();
  auto* out = reinterpret_cast<float*>(stream.scratch(slot, static_cast<size_t>(t.numel()) * 4));
  const auto* in = t.data<BFloat16>();
  parallel_for(t.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) out[i] = to_float(in[i]);
  });
  return out;
}

// oneDNN's own threads would divide the work by their number; here every call runs in the calling thread.
void sgemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda, const float* b,
           int64_t ldb, float beta, float* c, int64_t ldc) {
  const int before = omp_get_max_threads();
  if (!omp_in_parallel()) omp_set_num_threads(1);
  const auto status = dnnl_sgemm(ta ? 'T' : 'N', tb ? 'T' : 'N', m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  if (!omp_in_parallel()) omp_set_num_threads(before);
  require(status == dnnl_success, "matmul", "oneDNN refused a product of {} x {} x {} (status {})", m, n, k,
          static_cast<int>(status));
}

}  // namespace

void matmul(Stream& stream, const Tensor& a, const Tensor& b, Tensor& c, MatmulArgs args) {
  const int64_t m = c.shape()[0], n = c.shape()[1], k = args.transpose_a ? a.shape()[0] : a.shape()[1];
  if (m == 0 || n == 0) return;
  const float* pa = as_f32(stream, a, Stream::kKernelSlot);
  const float* pb = as_f32(stream, b, Stream::kKernelSlot2);
  const bool direct = c.dtype() == kF32;
  float* pc = direct ? c.data<float>()
                     : reinterpret_cast<float*>(stream.scratch(Stream::kPartialSlot, static_cast<size_t>(m * n) * 4));
  const float beta = direct && args.accumulate ? 1.0f : 0.0f;
  parallel_for(m, 128, [&](int64_t begin, int64_t end) {
    sgemm(args.transpose_a, args.transpose_b, end - begin, n, k, args.alpha, args.transpose_a ? pa + begin : pa + begin * k,
          args.transpose_a ? m : k, pb, args.transpose_b ? k : n, beta, pc + begin * n, n);
    if (direct) return;
    auto* o = c.data<BFloat16>();
    for (int64_t i = begin * n; i < end * n; ++i) o[i] = to_bf16(args.accumulate ? to_float(o[i]) + pc[i] : pc[i]);
  });
}

}  // namespace cpu
}  // namespace nibble::backend
