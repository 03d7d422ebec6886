#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "backend/cpu/dispatch.h"
#include "backend/cpu/kernels.h"
#include "base/parallel.h"

namespace nibble::backend::cpu {

void attention_backward(Stream&, const Tensor& dout, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                        const Tensor& lse, const Tensor& segments, AttentionArgs args, Tensor& dq, Tensor& dk, Tensor& dv) {
  const int64_t H = args.heads, G = args.kv_heads, K = args.head_width, group = H / G;
  const int32_t* seg = segments.data<int32_t>();
  for (Tensor* t : {&dq, &dk, &dv}) std::memset(t->raw(), 0, static_cast<size_t>(t->bytes()));
  with_float(q.dtype(), "attention_backward", [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T *pq = q.data<T>(), *pk = k.data<T>(), *pv = v.data<T>(), *pdo = dout.data<T>(), *po = out.data<T>();
    T *pdq = dq.data<T>(), *pdk = dk.data<T>(), *pdv = dv.data<T>();
    parallel_for(segments.size(0) * G, 1, [&](int64_t w, int64_t) {
      const int64_t s = w / G, g = w % G;
      const int64_t q0 = seg[4 * s], nq = seg[4 * s + 1], k0 = seg[4 * s + 2], nk = seg[4 * s + 3];
      std::vector<float> sdk(static_cast<size_t>(nk * K)), sdv(sdk), sdq(static_cast<size_t>(K));
      for (int64_t h = g * group; h < (g + 1) * group; ++h)
        for (int64_t i = 0; i < nq; ++i) {
          const int64_t last = args.causal ? nk - nq + i : nk - 1;
          const int64_t first = args.window > 0 ? std::max<int64_t>(0, last - args.window + 1) : 0;
          const int64_t row = ((q0 + i) * H + h) * K;
          const float l = lse.data<float>()[(q0 + i) * H + h];
          float delta = 0;
          for (int64_t c = 0; c < K; ++c) delta += to_float(pdo[row + c]) * to_float(po[row + c]);
          std::fill(sdq.begin(), sdq.end(), 0.0f);
          for (int64_t j = first; j <= last; ++j) {
            const int64_t at = ((k0 + j) * G + g) * K;
            float d = 0, dp = 0;
            for (int64_t c = 0; c < K; ++c) {
              d += to_float(pq[row + c]) * to_float(pk[at + c]);
              dp += to_float(pdo[row + c]) * to_float(pv[at + c]);
            }
            const float p = std::exp(d * args.scale - l), ds = p * (dp - delta) * args.scale;
            for (int64_t c = 0; c < K; ++c) {
              sdv[static_cast<size_t>(j * K + c)] += p * to_float(pdo[row + c]);
              sdk[static_cast<size_t>(j * K + c)] += ds * to_float(pq[row + c]);
              sdq[static_cast<size_t>(c)] += ds * to_float(pk[at + c]);
            }
          }
          for (int64_t c = 0; c < K; ++c) from_float(sdq[static_cast<size_t>(c)], pdq[row + c]);
        }
      for (int64_t j = 0; j < nk; ++j)
        for (int64_t c = 0; c < K; ++c) {
          from_float(sdk[static_cast<size_t>(j * K + c)], pdk[((k0 + j) * G + g) * K + c]);
          from_float(sdv[static_cast<size_t>(j * K + c)], pdv[((k0 + j) * G + g) * K + c]);
        }
    });
  });
}

}  // namespace nibble::backend::cpu
