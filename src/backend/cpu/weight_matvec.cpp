#include <algorithm>
#include <vector>

#include "backend/cpu/convert.h"
#include "backend/cpu/decode_row.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/matvec_int16.h"
#include "backend/cpu/simd_targets.h"
#include "base/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/weight_matvec.cpp"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway wants it:
#include "backend/cpu/convert-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

// Σ w[i] x[i] in a fixed order: four vectors of partial sums, then a tree over them.
template <class W>
float dot(const W* w, const float* x, int64_t n) {
  const F32 d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  auto a = hn::Zero(d), b = hn::Zero(d), c = hn::Zero(d), e = hn::Zero(d);
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    a = hn::MulAdd(load_f32(d, w + i), hn::LoadU(d, x + i), a);
    b = hn::MulAdd(load_f32(d, w + i + lanes), hn::LoadU(d, x + i + lanes), b);
    c = hn::MulAdd(load_f32(d, w + i + 2 * lanes), hn::LoadU(d, x + i + 2 * lanes), c);
    e = hn::MulAdd(load_f32(d, w + i + 3 * lanes), hn::LoadU(d, x + i + 3 * lanes), e);
  }
  for (; i + lanes <= n; i += lanes) a = hn::MulAdd(load_f32(d, w + i), hn::LoadU(d, x + i), a);
  float sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(a, b), hn::Add(c, e))));
  for (; i < n; ++i) sum += widen(w[i]) * x[i];
  return sum;
}

void dot_rows(DType dtype, const std::byte* w, const float* x, int64_t x_stride, int64_t count, int64_t n,
              float* sums) {
  for (int64_t t = 0; t < count; ++t, x += x_stride) {
    if (dtype == kF32) sums[t] += dot(reinterpret_cast<const float*>(w), x, n);
    if (dtype == kBF16) sums[t] += dot(reinterpret_cast<const BFloat16*>(w), x, n);
    if (dtype == kF16) sums[t] += dot(reinterpret_cast<const Float16*>(w), x, n);
  }
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::backend::cpu {

HWY_EXPORT(dot_rows);

namespace {

// From a dense weight, or one decoded row by row.
void matvec_f32(Stream& stream, const Tensor& x, const quant::Weight& w, Tensor& y) {
  const int64_t rows = w.rows(), cols = w.cols(), count = x.shape().rows();
  auto* wide = reinterpret_cast<float*>(
      stream.scratch(Stream::kKernelSlot, static_cast<size_t>(count * cols) * sizeof(float)));
  convert_values(x.dtype(), x.raw(), count * cols, kF32, reinterpret_cast<std::byte*>(wide));
  constexpr int64_t kStretch =
      2048;  // columns decoded at a time: whole GGUF blocks, and they stay in the first cache
  constexpr int64_t kMostRows = 256;  // of one chunk
  const int64_t grain = std::clamp<int64_t>((1 << 15) / std::max<int64_t>(cols, 1), 1, kMostRows);
  parallel_for(rows, grain, [&](int64_t begin, int64_t end) {
    float values[kStretch], results[kMatvecRows][kMostRows];
    for (int64_t r = begin; r < end; ++r) {
      float sums[kMatvecRows] = {};
      if (w.is_dense()) {
        const DType t = w.dense.dtype();
        HWY_DYNAMIC_DISPATCH(dot_rows)
        (t, w.dense.raw() + w.ggml_row(r) * cols * dtype_bytes(t), wide, cols, count, cols, sums);
      } else {
        for (int64_t c = 0; c < cols; c += kStretch) {
          const int64_t n = std::min(kStretch, cols - c);
          decode_row_part(w, r, c, c + n, values);
          HWY_DYNAMIC_DISPATCH(dot_rows)
          (kF32, reinterpret_cast<const std::byte*>(values), wide + c, cols, count, n, sums);
        }
      }
      for (int64_t t = 0; t < count; ++t) results[t][r - begin] = sums[t];
    }
    for (int64_t t = 0; t < count; ++t)
      convert_values(kF32, reinterpret_cast<const std::byte*>(results[t]), end - begin, y.dtype(),
                     y.raw() + (t * rows + begin) * dtype_bytes(y.dtype()));
  });
}

}  // namespace

void weight_matvec(Stream& stream, const Tensor& x, std::span<Matvec> products) {
  const int64_t count = x.shape().rows();
  bool integers = x.dtype() == kBF16;
  for (const auto& [w, y] : products) {
    require(w->shape.rank() == 2 && x.shape().last() == w->cols(), "weight_matvec",
            "x {} does not fit a weight {}", x.shape(), w->shape);
    require(y.shape().last() == w->rows() && y.shape().rows() == count && count <= kMatvecRows,
            "weight_matvec", "{} times {} into {} (at most {} rows)", x.shape(), w->shape, y.shape(),
            kMatvecRows);
    for (const DType t : {x.dtype(), y.dtype()})
      require(t == kF32 || t == kBF16, "weight_matvec", "expected f32 or bf16, got {}", dtype_name(t));
    integers = integers && matvec_int16_supports(*w);
  }
  if (integers) return matvec_int16(stream, x, products);
  for (Matvec& one : products) {
    if (x.dtype() == kBF16 && matvec_int16_supports(*one.w))
      matvec_int16(stream, x, {&one, 1});
    else
      matvec_f32(stream, x, *one.w, one.y);
  }
}

}  // namespace nibble::backend::cpu
#endif  // HWY_ONCE
