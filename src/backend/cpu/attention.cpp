#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "backend/cpu/dispatch.h"
#include "backend/cpu/kernels.h"
#include "base/parallel.h"

namespace nibble::backend::cpu {

void attention(Stream&, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& segments, AttentionArgs args,
               Tensor& out, Tensor& lse) {
  const int64_t H = args.heads, G = args.kv_heads, K = args.head_width;
  const int32_t* seg = segments.data<int32_t>();
  std::memset(out.raw(), 0, static_cast<size_t>(out.bytes()));
  std::fill_n(lse.data<float>(), lse.numel(), 0.0f);
  with_float(q.dtype(), "attention", [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T *pq = q.data<T>(), *pk = k.data<T>(), *pv = v.data<T>();
    T* po = out.data<T>();
    for (int64_t s = 0; s < segments.size(0); ++s) {
      const int64_t q0 = seg[4 * s], nq = seg[4 * s + 1], k0 = seg[4 * s + 2], nk = seg[4 * s + 3];
      parallel_for(nq * H, 64, [&](int64_t begin, int64_t end) {
        std::vector<float> p(static_cast<size_t>(nk)), acc(static_cast<size_t>(K));
        for (int64_t w = begin; w < end; ++w) {
          const int64_t i = w / H, h = w % H, g = h / (H / G);
          const int64_t last = args.causal ? nk - nq + i : nk - 1;
          const int64_t first = args.window > 0 ? std::max<int64_t>(0, last - args.window + 1) : 0;
          if (last < first) continue;
          const T* qi = pq + ((q0 + i) * H + h) * K;
          float high = -INFINITY, sum = 0;
          for (int64_t j = first; j <= last; ++j) {
            const T* kj = pk + ((k0 + j) * G + g) * K;
            float d = 0;
            for (int64_t c = 0; c < K; ++c) d += to_float(qi[c]) * to_float(kj[c]);
            p[static_cast<size_t>(j)] = d * args.scale;
            high = std::max(high, d * args.scale);
          }
          std::fill(acc.begin(), acc.end(), 0.0f);
          for (int64_t j = first; j <= last; ++j) {
            const float e = std::exp(p[static_cast<size_t>(j)] - high);
            sum += e;
            const T* vj = pv + ((k0 + j) * G + g) * K;
            for (int64_t c = 0; c < K; ++c) acc[static_cast<size_t>(c)] += e * to_float(vj[c]);
          }
          lse.data<float>()[(q0 + i) * H + h] = high + std::log(sum);
          for (int64_t c = 0; c < K; ++c) from_float(acc[static_cast<size_t>(c)] / sum, po[((q0 + i) * H + h) * K + c]);
        }
      });
    }
  });
}

}  // namespace nibble::backend::cpu
