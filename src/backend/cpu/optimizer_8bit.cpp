// AdamW with both moments in 8 bits: blocks of 256 values, each with its absmax, codes of bitsandbytes' dynamic maps.
#include <algorithm>
#include <cmath>

#include "backend/cpu/kernels.h"
#include "base/parallel.h"
#include "quant/weight.h"

namespace nibble::backend::cpu {
namespace {
constexpr int64_t kBlock = 256;

// The nearest code; a tie goes to the lower one.
uint8_t nearest_code(std::span<const float> map, float x) {
  const auto above = std::lower_bound(map.begin(), map.end(), x);
  if (above == map.begin()) return 0;
  if (above == map.end()) return static_cast<uint8_t>(map.size() - 1);
  const auto i = above - map.begin();
  return static_cast<uint8_t>(x > 0.5f * (map[static_cast<size_t>(i - 1)] + map[static_cast<size_t>(i)]) ? i : i - 1);
}

}  // namespace

void adamw_8bit(Stream&, Tensor& p, const Tensor& g, Tensor& m_codes, Tensor& m_absmax, Tensor& v_codes, Tensor& v_absmax,
                AdamArgs args) {
  float *pp = p.data<float>(), *am = m_absmax.data<float>(), *av = v_absmax.data<float>();
  uint8_t *cm = m_codes.data<uint8_t>(), *cv = v_codes.data<uint8_t>();
  const float* pg = g.data<float>();
  const double t = static_cast<double>(args.step);
  const float step = static_cast<float>(args.learning_rate / (1.0 - std::pow(static_cast<double>(args.beta1), t)));
  const float root = static_cast<float>(std::sqrt(1.0 - std::pow(static_cast<double>(args.beta2), t)));
  const float decay = 1.0f - args.learning_rate * args.weight_decay;
  const auto signed_map = quant::dynamic_map_signed(), unsigned_map = quant::dynamic_map_unsigned();
  parallel_for(p.numel(), kBlock, [&](int64_t begin, int64_t end) {
    float m[kBlock], v[kBlock], m_max = 0, v_max = 0;
    const int64_t block = begin / kBlock;
    for (int64_t i = begin; i < end; ++i) {
      const float gi = pg[i] * args.grad_scale;
      float mi = signed_map[cm[i]] * am[block], vi = unsigned_map[cv[i]] * av[block];
      if (std::isfinite(gi)) {
        mi = args.beta1 * mi + (1.0f - args.beta1) * gi;
        vi = args.beta2 * vi + (1.0f - args.beta2) * gi * gi;
        pp[i] = pp[i] * decay - step * mi / (std::sqrt(vi) / root + args.eps);
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
      uint8_t code = nearest_code(signed_map, x);
      // A moment never changes its sign by rounding.
      if (std::signbit(signed_map[code]) != std::signbit(x)) code = static_cast<uint8_t>(x > 0 ? code + 1 : code - 1);
      cm[i] = code;
      cv[i] = nearest_code(unsigned_map, v_max > 0 ? v[i - begin] / v_max : 0.0f);
    }
  });
}

}  // namespace nibble::backend::cpu
