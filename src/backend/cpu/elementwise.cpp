#include "backend/cpu/dispatch.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/simd_targets.h"
#include "base/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/elementwise.cpp"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway wants it:
#include "backend/cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

// Products and sums are rounded one by one (no fused multiply-add): the same bytes on every instruction set.
void scale_range(const Tensor& x, float factor, const Tensor& out, bool accumulate, int64_t begin,
                 int64_t end) {
  const hn::ScalableTag<float> d;
  const auto by = hn::Set(d, factor);
  with_float(x.dtype(), "scale", [&](auto tx) HWY_ATTR {
    with_float(out.dtype(), "scale", [&](auto to) HWY_ATTR {
      const auto* px = x.data<typename decltype(tx)::type>();
      auto* po = out.data<typename decltype(to)::type>();
      if (accumulate)
        for_vectors(d, begin, end, [&](const auto& at) HWY_ATTR {
          at.store(d, hn::Add(at.load(d, po), hn::Mul(at.load(d, px), by)), po);
        });
      else
        for_vectors(d, begin, end,
                    [&](const auto& at) HWY_ATTR { at.store(d, hn::Mul(at.load(d, px), by), po); });
    });
  });
}

// out[begin, end) = a[begin, end) + b[b_begin …): the same tensor position for add, the row's start for
// add_bias.
void add_range(const Tensor& a, const Tensor& b, const Tensor& out, int64_t begin, int64_t end,
               int64_t b_begin) {
  const hn::ScalableTag<float> d;
  with_float(a.dtype(), "add", [&](auto ta) HWY_ATTR {
    with_float(b.dtype(), "add", [&](auto tb) HWY_ATTR {
      with_float(out.dtype(), "add", [&](auto to) HWY_ATTR {
        const auto* pa = a.data<typename decltype(ta)::type>() + begin;
        const auto* pb = b.data<typename decltype(tb)::type>() + b_begin;
        auto* po = out.data<typename decltype(to)::type>() + begin;
        for_vectors(d, 0, end - begin, [&](const auto& at) HWY_ATTR {
          at.store(d, hn::Add(at.load(d, pa), at.load(d, pb)), po);
        });
      });
    });
  });
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::backend::cpu {
HWY_EXPORT(scale_range);
HWY_EXPORT(add_range);

namespace {
constexpr int64_t kGrain = 1 << 15;
}

void fill(Stream&, Tensor& out, float value) {
  if (out.dtype() == kI32) {
    std::fill_n(out.data<int32_t>(), out.numel(), static_cast<int32_t>(value));
    return;
  }
  with_float(out.dtype(), "fill", [&](auto to) {
    using O = typename decltype(to)::type;
    O v;
    from_float(value, v);
    O* o = out.data<O>();
    parallel_for(out.numel(), kGrain, [&](int64_t begin, int64_t end) { std::fill(o + begin, o + end, v); });
  });
}

void scale(Stream&, const Tensor& x, float factor, Tensor& out, bool accumulate) {
  parallel_for(x.numel(), kGrain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(scale_range)(x, factor, out, accumulate, begin, end);
  });
}

void accumulate(Stream& stream, const Tensor& x, Tensor& out, bool accumulate) {
  scale(stream, x, 1.0f, out, accumulate);
}

void add(Stream&, const Tensor& a, const Tensor& b, Tensor& out) {
  parallel_for(a.numel(), kGrain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(add_range)(a, b, out, begin, end, begin);
  });
}

void add_bias(Stream&, const Tensor& x, const Tensor& bias, Tensor& out) {
  const int64_t n = x.shape().last();
  parallel_for(x.shape().rows(), 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      HWY_DYNAMIC_DISPATCH(add_range)(x, bias, out, r * n, (r + 1) * n, 0);
  });
}

}  // namespace nibble::backend::cpu
#endif  // HWY_ONCE
