#include "backend/cpu/dispatch.h"
#include "backend/cpu/kernels.h"
#include "base/parallel.h"

namespace nibble::backend::cpu {
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
  with_float(x.dtype(), "scale", [&](auto tx) {
    with_float(out.dtype(), "scale", [&](auto to) {
      const auto* px = x.data<typename decltype(tx)::type>();
      auto* po = out.data<typename decltype(to)::type>();
      parallel_for(x.numel(), kGrain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const float s = factor * to_float(px[i]);
          from_float(accumulate ? to_float(po[i]) + s : s, po[i]);
        }
      });
    });
  });
}

void accumulate(Stream& stream, const Tensor& x, Tensor& out, bool accumulate) { scale(stream, x, 1.0f, out, accumulate); }

void add(Stream&, const Tensor& a, const Tensor& b, Tensor& out) {
  with_float(a.dtype(), "add", [&](auto ta) {
    with_float(b.dtype(), "add", [&](auto tb) {
      with_float(out.dtype(), "add", [&](auto to) {
        const auto* pa = a.data<typename decltype(ta)::type>();
        const auto* pb = b.data<typename decltype(tb)::type>();
        auto* po = out.data<typename decltype(to)::type>();
        parallel_for(a.numel(), kGrain, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) from_float(to_float(pa[i]) + to_float(pb[i]), po[i]);
        });
      });
    });
  });
}

void add_bias(Stream&, const Tensor& x, const Tensor& bias, Tensor& out) {
  const int64_t n = x.shape().last();
  with_float(x.dtype(), "add_bias", [&](auto ta) {
    with_float(bias.dtype(), "add_bias", [&](auto tb) {
      with_float(out.dtype(), "add_bias", [&](auto to) {
        const auto* pa = x.data<typename decltype(ta)::type>();
        const auto* pb = bias.data<typename decltype(tb)::type>();
        auto* po = out.data<typename decltype(to)::type>();
        parallel_for(x.shape().rows(), 16, [&](int64_t begin, int64_t end) {
          for (int64_t r = begin; r < end; ++r)
            for (int64_t i = 0; i < n; ++i) from_float(to_float(pa[r * n + i]) + to_float(pb[i]), po[r * n + i]);
        });
      });
    });
  });
}

}  // namespace nibble::backend::cpu
