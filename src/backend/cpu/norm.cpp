#include <cmath>

#include "backend/cpu/dispatch.h"
#include "backend/cpu/kernels.h"
#include "base/parallel.h"

namespace nibble::backend::cpu {
namespace {
constexpr int64_t kRows = 64;
}

void rms_norm(Stream&, const Tensor& x, const Tensor& w, float eps, Tensor& y, Tensor& rstd) {
  const int64_t n = x.shape().last();
  float* pr = rstd.data<float>();
  with_float(x.dtype(), "rms_norm", [&](auto tx) {
    with_float(w.dtype(), "rms_norm", [&](auto tw) {
      const auto* px = x.data<typename decltype(tx)::type>();
      const auto* pw = w.data<typename decltype(tw)::type>();
      auto* py = y.data<typename decltype(tx)::type>();
      parallel_for(x.shape().rows(), kRows, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
          float s = 0;
          for (int64_t i = 0; i < n; ++i) s += to_float(px[r * n + i]) * to_float(px[r * n + i]);
          pr[r] = 1.0f / std::sqrt(s / static_cast<float>(n) + eps);
          for (int64_t i = 0; i < n; ++i) from_float(to_float(px[r * n + i]) * pr[r] * to_float(pw[i]), py[r * n + i]);
        }
      });
    });
  });
}

void rms_norm_backward(Stream& stream, const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& rstd, Tensor& dx,
                       bool accumulate_dx, Tensor& dw, bool accumulate_dw) {
  const int64_t n = x.shape().last(), rows = x.shape().rows(), chunks = (rows + kRows - 1) / kRows;
  const float* pr = rstd.data<float>();
  float* partial = nullptr;
  if (dw) partial = reinterpret_cast<float*>(stream.scratch(Stream::kPartialSlot, static_cast<size_t>(chunks * n) * 4));
  with_float(x.dtype(), "rms_norm_backward", [&](auto tx) {
    with_float(w.dtype(), "rms_norm_backward", [&](auto tw) {
      with_float(dy.dtype(), "rms_norm_backward", [&](auto ty) {
        with_float(dx.dtype(), "rms_norm_backward", [&](auto tdx) {
          const auto* px = x.data<typename decltype(tx)::type>();
          const auto* pw = w.data<typename decltype(tw)::type>();
          const auto* py = dy.data<typename decltype(ty)::type>();
          auto* pdx = dx.data<typename decltype(tdx)::type>();
          parallel_for(rows, kRows, [&](int64_t begin, int64_t end) {
            float* sum = dw ? partial + begin / kRows * n : nullptr;
            if (sum) std::fill_n(sum, n, 0.0f);
            for (int64_t r = begin; r < end; ++r) {
              float dot = 0;
              for (int64_t i = 0; i < n; ++i) dot += to_float(py[r * n + i]) * to_float(pw[i]) * to_float(px[r * n + i]);
              const float rs = pr[r], c = dot * rs * rs * rs / static_cast<float>(n);
              for (int64_t i = 0; i < n; ++i) {
                const float xi = to_float(px[r * n + i]), d = to_float(py[r * n + i]);
                if (sum) sum[i] += d * xi * rs;
                const float g = d * to_float(pw[i]) * rs - xi * c;
                from_float(accumulate_dx ? to_float(pdx[r * n + i]) + g : g, pdx[r * n + i]);
              }
            }
          });
        });
      });
    });
  });
  if (!dw) return;
  float* po = dw.data<float>();
  for (int64_t i = 0; i < n; ++i) {
    float s = 0;
    for (int64_t c = 0; c < chunks; ++c) s += partial[c * n + i];
    po[i] = accumulate_dw ? po[i] + s : s;
  }
}

}  // namespace nibble::backend::cpu
