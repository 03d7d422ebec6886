#include "backend/cpu/dispatch.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/simd_targets.h"
#include "base/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/dropout.cpp"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway wants it:
#include "backend/cpu/vector-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

// The low and the high half of a * m in every lane.
template <class D, class V = hn::Vec<D>>
HWY_INLINE void multiply_wide(D d, V a, uint32_t m, V& low, V& high) {
  const hn::Repartition<uint64_t, D> d64;
  const auto by = hn::Set(d, m);
  const auto even = hn::MulEven(a, by);
  const auto odd = hn::MulEven(hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(d64, a))), by);
  low = hn::OddEven(hn::BitCast(d, hn::ShiftLeft<32>(odd)), hn::BitCast(d, even));
  high = hn::OddEven(hn::BitCast(d, odd), hn::BitCast(d, hn::ShiftRight<32>(even)));
}

// Rng::uniform(i) for as many i as there are lanes; none of them crosses a multiple of 2^32.
template <class D>
HWY_INLINE hn::Vec<D> uniform(D d, uint64_t i, uint64_t seed, uint64_t stream) {
  const hn::Rebind<uint32_t, D> d32;
  const hn::Rebind<int32_t, D> s32;
  auto c0 = hn::Iota(d32, static_cast<uint32_t>(i)), c1 = hn::Set(d32, static_cast<uint32_t>(i >> 32));
  auto c2 = hn::Set(d32, static_cast<uint32_t>(stream)),
       c3 = hn::Set(d32, static_cast<uint32_t>(stream >> 32));
  auto k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    auto low0 = c0, high0 = c0, low1 = c0, high1 = c0;
    multiply_wide(d32, c0, 0xD2511F53u, low0, high0);
    multiply_wide(d32, c2, 0xCD9E8D57u, low1, high1);
    c0 = hn::Xor(hn::Xor(high1, c1), hn::Set(d32, k0));
    c2 = hn::Xor(hn::Xor(high0, c3), hn::Set(d32, k1));
    c1 = low1;
    c3 = low0;
  }
  return hn::Mul(hn::ConvertTo(d, hn::BitCast(s32, hn::ShiftRight<8>(c0))), hn::Set(d, 0x1.0p-24f));
}

void dropout_range(const Tensor& x, float p, uint64_t seed, uint64_t stream, const Tensor& out,
                   bool accumulate, int64_t begin, int64_t end) {
  const hn::ScalableTag<float> d;
  const auto threshold = hn::Set(d, p), grow = hn::Set(d, 1.0f / (1.0f - p));
  with_float(x.dtype(), "dropout", [&](auto tx) HWY_ATTR {
    with_float(out.dtype(), "dropout", [&](auto to) HWY_ATTR {
      const auto* px = x.data<typename decltype(tx)::type>();
      auto* po = out.data<typename decltype(to)::type>();
      for_vectors(d, begin, end, [&](const auto& at) HWY_ATTR {
        const auto kept = hn::Ge(uniform(d, static_cast<uint64_t>(at.i), seed, stream), threshold);
        auto v = hn::IfThenElseZero(kept, hn::Mul(at.load(d, px), grow));
        if (accumulate) v = hn::Add(at.load(d, po), v);
        at.store(d, v, po);
      });
    });
  });
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::backend::cpu {
HWY_EXPORT(dropout_range);

void dropout(Stream&, const Tensor& x, float p, uint64_t seed, uint64_t stream_id, Tensor& out,
             bool accumulate) {
  constexpr int64_t kGrain = 1 << 14;  // divides 2^32: a chunk's counters share their upper half
  parallel_for(x.numel(), kGrain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(dropout_range)(x, p, seed, stream_id, out, accumulate, begin, end);
  });
}

}  // namespace nibble::backend::cpu
#endif  // HWY_ONCE
