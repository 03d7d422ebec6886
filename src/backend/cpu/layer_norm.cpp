#include <cmath>

#include "backend/cpu/dispatch.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/simd_targets.h"
#include "base/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/layer_norm.cpp"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway wants it:
#include "backend/cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

// The variance is summed from the distances to the mean; beyond the row those are not zero, so its rest is
// added one by one.
void layer_norm_rows(const Tensor& x, const Tensor& w, const Tensor& b, float eps, const Tensor& y,
                     const Tensor& mean, const Tensor& rstd, int64_t begin, int64_t end) {
  const hn::ScalableTag<float> d;
  const int64_t n = x.shape().last(), whole = n - n % static_cast<int64_t>(hn::Lanes(d));
  const float *pw = w.data<float>(), *pb = b.data<float>();
  const float inverse = 1.0f / static_cast<float>(n);
  with_float(x.dtype(), "layer_norm", [&](auto tx) HWY_ATTR {
    using X = typename decltype(tx)::type;
    for (int64_t r = begin; r < end; ++r) {
      const X* px = x.data<X>() + r * n;
      X* py = y.data<X>() + r * n;
      auto sum = hn::Zero(d);
      for_vectors(d, 0, n, [&](const auto& at) HWY_ATTR { sum = hn::Add(sum, at.load(d, px)); });
      const float m = hn::GetLane(hn::SumOfLanes(d, sum)) * inverse;
      const auto middle = hn::Set(d, m);
      auto squares = hn::Zero(d);
      for_vectors(d, 0, whole, [&](const auto& at) HWY_ATTR {
        const auto v = hn::Sub(at.load(d, px), middle);
        squares = hn::MulAdd(v, v, squares);
      });
      float variance = hn::GetLane(hn::SumOfLanes(d, squares));
      for (int64_t i = whole; i < n; ++i) {
        const float v = to_float(px[i]) - m;
        variance += v * v;
      }
      const float s = 1.0f / std::sqrt(variance * inverse + eps);
      mean.data<float>()[r] = m;
      rstd.data<float>()[r] = s;
      const auto scale = hn::Set(d, s);
      for_vectors(d, 0, n, [&](const auto& at) HWY_ATTR {
        const auto v = hn::Mul(hn::Sub(at.load(d, px), middle), scale);
        at.store(d, hn::Add(hn::Mul(v, at.load(d, pw)), at.load(d, pb)), py);
      });
    }
  });
}

// With x̂ = (x - mean) rstd and g = dy w:  dx = rstd (g - mean(g) - x̂ mean(g x̂));  dw_sums [n] += dy x̂ and
// db_sums [n] += dy, or null.
void layer_norm_backward_rows(const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& mean,
                              const Tensor& rstd, const Tensor& dx, bool accumulate, float* dw_sums,
                              float* db_sums, int64_t begin, int64_t end) {
  const hn::ScalableTag<float> d;
  const char* const op = "layer_norm_backward";
  const AnyFloats dys(dy, op), xs(x, op), dxs(dx, op);
  const float* pw = w.data<float>();
  const int64_t n = x.shape().last();
  const float inverse = 1.0f / static_cast<float>(n);
  for (int64_t r = begin; r < end; ++r) {
    const AnyFloats py = dys + r * n, px = xs + r * n, to = dxs + r * n;
    const auto middle = hn::Set(d, mean.data<float>()[r]), scale = hn::Set(d, rstd.data<float>()[r]);
    auto sum = hn::Zero(d), dot = hn::Zero(d);
    for_vectors(d, 0, n, [&](const auto& at) HWY_ATTR {  // beyond the row g is zero
      const auto g = hn::Mul(at.load(d, py), at.load(d, pw));
      sum = hn::Add(sum, g);
      dot = hn::MulAdd(g, hn::Mul(hn::Sub(at.load(d, px), middle), scale), dot);
    });
    const auto mean_g = hn::Set(d, hn::GetLane(hn::SumOfLanes(d, sum)) * inverse);
    const auto mean_gx = hn::Set(d, hn::GetLane(hn::SumOfLanes(d, dot)) * inverse);
    for_vectors(d, 0, n, [&](const auto& at) HWY_ATTR {
      const auto y = at.load(d, py), normal = hn::Mul(hn::Sub(at.load(d, px), middle), scale);
      auto g = hn::Sub(hn::Sub(hn::Mul(y, at.load(d, pw)), mean_g), hn::Mul(normal, mean_gx));
      g = hn::Mul(g, scale);
      if (accumulate) g = hn::Add(at.load(d, to), g);
      at.store(d, g, to);
      if (dw_sums != nullptr) at.store(d, hn::MulAdd(y, normal, at.load(d, dw_sums)), dw_sums);
      if (db_sums != nullptr) at.store(d, hn::Add(at.load(d, db_sums), y), db_sums);
    });
  }
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::backend::cpu {
HWY_EXPORT(layer_norm_rows);
HWY_EXPORT(layer_norm_backward_rows);

namespace {
constexpr int64_t kRows = 64;

// The chunks' sums added in their order.
void add_chunks(const float* partial, int64_t chunks, int64_t stride, Tensor& out, bool accumulate) {
  float* to = out.data<float>();
  for (int64_t i = 0; i < out.numel(); ++i) {
    float s = 0;
    for (int64_t c = 0; c < chunks; ++c) s += partial[c * stride + i];
    to[i] = accumulate ? to[i] + s : s;
  }
}
}  // namespace

void layer_norm(Stream&, const Tensor& x, const Tensor& w, const Tensor& b, float eps, Tensor& y,
                Tensor& mean, Tensor& rstd) {
  parallel_for(x.shape().rows(), kRows / 4, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(layer_norm_rows)(x, w, b, eps, y, mean, rstd, begin, end);
  });
}

void layer_norm_backward(Stream& stream, const Tensor& dy, const Tensor& x, const Tensor& w,
                         const Tensor& mean, const Tensor& rstd, Tensor& dx, bool accumulate_dx, Tensor& dw,
                         bool accumulate_dw, Tensor& db, bool accumulate_db) {
  const int64_t n = x.shape().last(), rows = x.shape().rows(), chunks = (rows + kRows - 1) / kRows;
  float* partial = nullptr;  // of each chunk: dw [n], db [n]
  if (dw || db)
    partial = reinterpret_cast<float*>(
        stream.scratch(Stream::kPartialSlot, static_cast<size_t>(chunks * 2 * n) * 4));
  parallel_for(rows, kRows, [&](int64_t begin, int64_t end) {
    float* sums = partial == nullptr ? nullptr : partial + begin / kRows * 2 * n;
    if (sums != nullptr) std::fill_n(sums, 2 * n, 0.0f);
    HWY_DYNAMIC_DISPATCH(layer_norm_backward_rows)
    (dy, x, w, mean, rstd, dx, accumulate_dx, dw ? sums : nullptr, db ? sums + n : nullptr, begin, end);
  });
  if (dw) add_chunks(partial, chunks, 2 * n, dw, accumulate_dw);
  if (db) add_chunks(partial + n, chunks, 2 * n, db, accumulate_db);
}

}  // namespace nibble::backend::cpu
#endif  // HWY_ONCE
