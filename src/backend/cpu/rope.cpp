#include "backend/cpu/dispatch.h"
#include "backend/cpu/kernels.h"
#include "base/parallel.h"

namespace nibble::backend::cpu {

void rope(Stream&, const Tensor& x, const Tensor& cos_sin, const Tensor& positions, int64_t head_width, int direction,
          Tensor& out) {
  const int64_t width = x.shape().last(), heads = width / head_width, n = cos_sin.shape().last(), half = n / 2;
  const float* table = cos_sin.data<float>();
  const int32_t* position = positions.data<int32_t>();
  with_float(x.dtype(), "rope", [&](auto tx) {
    with_float(out.dtype(), "rope", [&](auto to) {
      const auto* px = x.data<typename decltype(tx)::type>();
      auto* po = out.data<typename decltype(to)::type>();
      parallel_for(positions.numel(), 32, [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
          const float *cosine = table + position[t] * n, *sine = cosine + half;
          for (int64_t h = 0; h < heads; ++h) {
            const auto* in = px + t * width + h * head_width;
            auto* o = po + t * width + h * head_width;
            for (int64_t i = 0; i < half; ++i) {
              const float a = to_float(in[i]), b = to_float(in[i + half]);
              const float c = cosine[i], s = direction < 0 ? -sine[i] : sine[i];
              from_float(a * c - b * s, o[i]);
              from_float(b * c + a * s, o[i + half]);
            }
            for (int64_t i = n; i < head_width; ++i) from_float(to_float(in[i]), o[i]);
          }
        }
      });
    });
  });
}

}  // namespace nibble::backend::cpu
