// AdamW with both moments in 8 bits: blocks of 256 values, each with its absmax, codes of bitsandbytes'
// dynamic maps.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "backend/cpu/adam.h"
#include "backend/cpu/kernels.h"
#include "base/parallel.h"
#include "quant/weight.h"

namespace nibble::backend::cpu {
namespace {
constexpr int64_t kBlock = 256;

// The nearest code of an ascending map of 256 values; a tie goes to the lower one. The upper 14 bits of a
// float lead to the first code it can have, a few comparisons to the right one.
class NearestCode {
 public:
  explicit NearestCode(std::span<const float> map) {
    for (size_t i = 0; i + 1 < 256; ++i) middle_[i] = 0.5f * (map[i] + map[i + 1]);
    middle_[255] = INFINITY;
    for (uint32_t top = 0; top < first_.size(); ++top) {
      // The smallest value of the bucket: its own for positive ones, the largest magnitude for negative ones.
      const uint32_t bits = top << kShift | (top >> (31 - kShift) != 0 ? (1u << kShift) - 1 : 0u);
      const float x = std::bit_cast<float>(bits);
      first_[top] = std::isnan(x) ? 0 : search(0, x);
    }
  }
  uint8_t operator()(float x) const { return search(first_[std::bit_cast<uint32_t>(x) >> kShift], x); }

 private:
  static constexpr int kShift = 18;
  uint8_t search(uint8_t from, float x) const {
    size_t i = from;
    while (x > middle_[i]) ++i;
    return static_cast<uint8_t>(i);
  }
  std::array<float, 256> middle_;
  std::array<uint8_t, 1 << (32 - kShift)> first_;
};

}  // namespace

void adamw_8bit(Stream&, Tensor& p, const Tensor& g, Tensor& m_codes, Tensor& m_absmax, Tensor& v_codes,
                Tensor& v_absmax, AdamArgs args) {
  float *pp = p.data<float>(), *am = m_absmax.data<float>(), *av = v_absmax.data<float>();
  uint8_t *cm = m_codes.data<uint8_t>(), *cv = v_codes.data<uint8_t>();
  const float* pg = g.data<float>();
  const AdamStep step = adam_step(args);
  static const auto signed_map = quant::dynamic_map_signed(), unsigned_map = quant::dynamic_map_unsigned();
  static const NearestCode signed_code(signed_map), unsigned_code(unsigned_map);
  parallel_for(p.numel(), kBlock, [&](int64_t begin, int64_t end) {
    float m[kBlock], v[kBlock], m_max = 0, v_max = 0;
    const int64_t block = begin / kBlock;
    for (int64_t i = begin; i < end; ++i) {
      const float gi = pg[i] * args.grad_scale;
      float mi = signed_map[cm[i]] * am[block], vi = unsigned_map[cv[i]] * av[block];
      if (std::isfinite(gi)) {
        mi = args.beta1 * mi + (1.0f - args.beta1) * gi;
        vi = args.beta2 * vi + (1.0f - args.beta2) * gi * gi;
        pp[i] = pp[i] * step.decay - step.rate * mi / (std::sqrt(vi) / step.root + args.eps);
      }
      m[i - begin] = mi;
      v[i - begin] = vi;
      m_max = std::max(m_max, std::abs(mi));
      v_max = std::max(v_max, vi);
    }
    am[block] = m_max;
    av[block] = v_max;
    for (int64_t i = begin; i < end; ++i) {
      const float x = m_max > 0 ? m[i - begin] / m_max : 0.0f;
      uint8_t code = signed_code(x);
      // A moment never changes its sign by rounding.
      if (x != 0 && std::signbit(signed_map[code]) != std::signbit(x))
        code = static_cast<uint8_t>(x > 0 ? code + 1 : code - 1);
      cm[i] = code;
      cv[i] = unsigned_code(v_max > 0 ? v[i - begin] / v_max : 0.0f);
    }
  });
}

}  // namespace nibble::backend::cpu
