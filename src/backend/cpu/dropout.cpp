#include "backend/cpu/dispatch.h"
#include "backend/cpu/kernels.h"
#include "base/parallel.h"
#include "base/rng.h"

namespace nibble::backend::cpu {

void dropout(Stream&, const Tensor& x, float p, uint64_t seed, uint64_t stream_id, Tensor& out, bool accumulate) {
  const Rng rng(seed, stream_id);
  const float keep = 1.0f / (1.0f - p);
  with_float(x.dtype(), "dropout", [&](auto tx) {
    with_float(out.dtype(), "dropout", [&](auto to) {
      const auto* px = x.data<typename decltype(tx)::type>();
      auto* po = out.data<typename decltype(to)::type>();
      parallel_for(x.numel(), 1 << 14, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const float v = rng.uniform(static_cast<uint64_t>(i)) >= p ? to_float(px[i]) * keep : 0.0f;
          from_float(accumulate ? to_float(po[i]) + v : v, po[i]);
        }
      });
    });
  });
}

}  // namespace nibble::backend::cpu
