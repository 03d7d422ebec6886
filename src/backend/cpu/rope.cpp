#include "backend/cpu/dispatch.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/simd_targets.h"
#include "base/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/rope.cpp"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway wants it:
#include "backend/cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

void rope_rows(const Tensor& x, const Tensor& cos_sin, const Tensor& positions, int64_t head_width,
               int direction, const Tensor& out, int64_t begin, int64_t end) {
  const hn::ScalableTag<float> d;
  const int64_t width = x.shape().last(), n = cos_sin.shape().last(), half = n / 2;
  const auto sign = hn::Set(d, direction < 0 ? -1.0f : 1.0f);
  with_float(x.dtype(), "rope", [&](auto tx) HWY_ATTR {
    with_float(out.dtype(), "rope", [&](auto to) HWY_ATTR {
      for (int64_t t = begin; t < end; ++t) {
        const float *cosine = cos_sin.data<float>() + positions.data<int32_t>()[t] * n, *sine = cosine + half;
        for (int64_t h = t * width; h < (t + 1) * width; h += head_width) {
          const auto* in = x.data<typename decltype(tx)::type>() + h;
          auto* o = out.data<typename decltype(to)::type>() + h;
          for_vectors(d, 0, half, [&](const auto& at) HWY_ATTR {
            const auto a = at.load(d, in), b = at.load(d, in + half), c = at.load(d, cosine),
                       s = hn::Mul(at.load(d, sine), sign);
            at.store(d, hn::Sub(hn::Mul(a, c), hn::Mul(b, s)), o);
            at.store(d, hn::Add(hn::Mul(b, c), hn::Mul(a, s)), o + half);
          });
          for_vectors(d, n, head_width, [&](const auto& at) HWY_ATTR { at.store(d, at.load(d, in), o); });
        }
      }
    });
  });
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::backend::cpu {
HWY_EXPORT(rope_rows);

void rope(Stream&, const Tensor& x, const Tensor& cos_sin, const Tensor& positions, int64_t head_width,
          int direction, Tensor& out) {
  parallel_for(positions.numel(), 16, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(rope_rows)(x, cos_sin, positions, head_width, direction, out, begin, end);
  });
}

}  // namespace nibble::backend::cpu
#endif  // HWY_ONCE
