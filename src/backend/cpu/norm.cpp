#include <cmath>

#include "backend/cpu/kernels.h"
#include "backend/cpu/simd_targets.h"
#include "base/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/norm.cpp"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway wants it:
#include "backend/cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

void rms_norm_rows(const Tensor& x, const Tensor& w, float eps, float offset, const Tensor& y,
                   const Tensor& rstd, int64_t begin, int64_t end) {
  const hn::ScalableTag<float> d;
  const int64_t n = x.shape().last();
  const auto plus = hn::Set(d, offset);
  const AnyFloats rows(x, "rms_norm"), pw(w, "rms_norm"), out(y, "rms_norm");
  float* inverse = rstd.data<float>();
  for (int64_t r = begin; r < end; ++r) {
    const AnyFloats px = rows + r * n, py = out + r * n;
    auto squares = hn::Zero(d);
    for_vectors(d, 0, n, [&](const auto& at) HWY_ATTR {
      const auto v = at.load(d, px);
      squares = hn::MulAdd(v, v, squares);
    });
    inverse[r] = 1.0f / std::sqrt(hn::GetLane(hn::SumOfLanes(d, squares)) / static_cast<float>(n) + eps);
    const auto s = hn::Set(d, inverse[r]);
    for_vectors(d, 0, n, [&](const auto& at) HWY_ATTR {
      at.store(d, hn::Mul(hn::Mul(at.load(d, px), s), hn::Add(at.load(d, pw), plus)), py);
    });
  }
}

// dx = rstd (dy w - x rstd² mean(dy w x)), w with its offset;  sums [n] += dy x rstd, or null.
void rms_norm_backward_rows(const Tensor& dy, const Tensor& x, const Tensor& w, float offset,
                            const Tensor& rstd, const Tensor& dx, bool accumulate, float* sums, int64_t begin,
                            int64_t end) {
  const hn::ScalableTag<float> d;
  const char* const op = "rms_norm_backward";
  const AnyFloats dys(dy, op), xs(x, op), pw(w, op), dxs(dx, op);
  const int64_t n = x.shape().last();
  const auto plus = hn::Set(d, offset);
  for (int64_t r = begin; r < end; ++r) {
    const AnyFloats py = dys + r * n, px = xs + r * n, to = dxs + r * n;
    auto dot = hn::Zero(d);
    for_vectors(d, 0, n, [&](const auto& at) HWY_ATTR {
      dot = hn::MulAdd(hn::Mul(at.load(d, py), hn::Add(at.load(d, pw), plus)), at.load(d, px), dot);
    });
    const float s = rstd.data<float>()[r];
    const auto scale = hn::Set(d, s);
    const auto back = hn::Set(d, -hn::GetLane(hn::SumOfLanes(d, dot)) * s * s * s / static_cast<float>(n));
    for_vectors(d, 0, n, [&](const auto& at) HWY_ATTR {
      const auto xi = at.load(d, px), gi = hn::Mul(at.load(d, py), scale);
      auto g = hn::MulAdd(xi, back, hn::Mul(gi, hn::Add(at.load(d, pw), plus)));
      if (accumulate) g = hn::Add(at.load(d, to), g);
      at.store(d, g, to);
      if (sums != nullptr) at.store(d, hn::MulAdd(gi, xi, at.load(d, sums)), sums);
    });
  }
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::backend::cpu {
HWY_EXPORT(rms_norm_rows);
HWY_EXPORT(rms_norm_backward_rows);

namespace {
constexpr int64_t kRows = 64;
}

void rms_norm(Stream&, const Tensor& x, const Tensor& w, float eps, float offset, Tensor& y, Tensor& rstd) {
  parallel_for(x.shape().rows(), kRows / 4, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(rms_norm_rows)(x, w, eps, offset, y, rstd, begin, end);
  });
}

void rms_norm_backward(Stream& stream, const Tensor& dy, const Tensor& x, const Tensor& w, float offset,
                       const Tensor& rstd, Tensor& dx, bool accumulate_dx, Tensor& dw, bool accumulate_dw) {
  const int64_t n = x.shape().last(), rows = x.shape().rows(), chunks = (rows + kRows - 1) / kRows;
  float* partial = nullptr;
  if (dw)
    partial =
        reinterpret_cast<float*>(stream.scratch(Stream::kPartialSlot, static_cast<size_t>(chunks * n) * 4));
  parallel_for(rows, kRows, [&](int64_t begin, int64_t end) {
    float* sums = dw ? partial + begin / kRows * n : nullptr;
    if (sums != nullptr) std::fill_n(sums, n, 0.0f);
    HWY_DYNAMIC_DISPATCH(rms_norm_backward_rows)(dy, x, w, offset, rstd, dx, accumulate_dx, sums, begin, end);
  });
  if (!dw) return;
  float* to = dw.data<float>();
  for (int64_t i = 0; i < n; ++i) {
    float s = 0;
    for (int64_t c = 0; c < chunks; ++c) s += partial[c * n + i];
    to[i] = accumulate_dw ? to[i] + s : s;
  }
}

}  // namespace nibble::backend::cpu
#endif  // HWY_ONCE
