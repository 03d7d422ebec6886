// What may be done to scaled scores before the softmax: a soft cap, then ALiBi's bias, then one by distance
// (backend/kernels/attention.h).
#include "backend/cpu/activation-inl.h"
#include "backend/cpu/attention.h"
#include "backend/cpu/exp-inl.h"
#include "backend/cpu/vector-inl.h"

#if defined(NIBBLE_CPU_ATTENTION_SCORES_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef NIBBLE_CPU_ATTENTION_SCORES_INL
#undef NIBBLE_CPU_ATTENTION_SCORES_INL
#else
#define NIBBLE_CPU_ATTENTION_SCORES_INL
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// e^(score - high) for products by kStep: bf16 keeps 8 bits of it, so that pairs need no more than 17.
template <Step kStep, class D, class V = hn::Vec<D>>
HWY_INLINE V exp_of_score(D d, V score, V high) {
#if HWY_TARGET == HWY_AVX3
  if constexpr (kStep == Step::kPair) {
    return V{short_exp2(_mm512_mul_ps(_mm512_sub_ps(score.raw, high.raw), _mm512_set1_ps(1.44269504f)))};
  }
#endif
  return exp_f32(d, hn::Sub(score, high));
}

// The scores of one query against neighbouring keys, or of one key against neighbouring queries.
class AdjustScores {
 public:
  // bias: of the head, by distance (DistanceBias::at); null: none.
  AdjustScores(const AttentionArgs& args, int64_t head, const float* bias)
      : cap_(args.softcap), slope_(args.alibi ? alibi_slope(head, args.heads) : 0), bias_(bias) {}
  bool any() const { return cap_ > 0 || slope_ != 0 || bias_ != nullptr; }

  // distance: of key from query (negative before it) at the first lane; it grows by one from lane to lane
  // along keys, and falls along queries. In *slope the factor that a gradient takes on its way back through
  // the cap.
  template <class D, class V = hn::Vec<D>>
  HWY_INLINE V operator()(D d, V scores, int64_t distance, bool along_keys, V* slope) const {
    *slope = hn::Set(d, 1.0f);
    if (cap_ > 0) {
      const auto t = tanh_f32(d, hn::Mul(scores, hn::Set(d, 1.0f / cap_)));
      *slope = hn::Sub(*slope, hn::Mul(t, t));
      scores = hn::Mul(t, hn::Set(d, cap_));
    }
    if (slope_ != 0) {
      const auto first = hn::Set(d, static_cast<float>(distance)), lane = hn::Iota(d, 0.0f);
      const auto at = along_keys ? hn::Add(first, lane) : hn::Sub(first, lane);
      scores = hn::Add(scores, hn::Mul(at, hn::Set(d, slope_)));
    }
    if (bias_ == nullptr) return scores;
    const auto lanes = static_cast<int64_t>(hn::Lanes(d));
    return hn::Add(scores, along_keys ? hn::LoadU(d, bias_ + distance)
                                      : hn::Reverse(d, hn::LoadU(d, bias_ + distance - lanes + 1)));
  }

 private:
  float cap_, slope_;
  const float* bias_;
};

// row[0, count): scores of one query; the row is padded to whole vectors.
HWY_INLINE void adjust_row(const AdjustScores& adjust, float* row, int64_t count, int64_t distance) {
  const hn::ScalableTag<float> d;
  for (int64_t j = 0; j < count; j += static_cast<int64_t>(hn::Lanes(d))) {
    auto slope = hn::Zero(d);
    hn::StoreU(adjust(d, hn::LoadU(d, row + j), distance + j, true, &slope), d, row + j);
  }
}

// Lanes of a vector from `at` on that are in [first, end).
template <class D>
HWY_INLINE hn::Mask<D> lanes_within(D d, int64_t at, int64_t first, int64_t end) {
  const auto index = hn::Iota(d, static_cast<float>(at));
  return hn::And(hn::Ge(index, hn::Set(d, static_cast<float>(first))),
                 hn::Lt(index, hn::Set(d, static_cast<float>(end))));
}

// out[0, count) = exp(s - high), zero outside [first, end); returns their sum. out may lie where s does.
template <Step kStep, class P>
HWY_INLINE float softmax_row(const float* s, int64_t count, int64_t first, int64_t end, float high, P out) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto h = hn::Set(d, high);
  auto sum = hn::Zero(d);
  for (int64_t j = 0; j < count; j += lanes) {  // the row is padded to whole vectors
    auto p = exp_of_score<kStep>(d, hn::LoadU(d, s + j), h);
    if (j < first || j + lanes > end) p = hn::IfThenElseZero(lanes_within(d, j, first, end), p);
    sum = hn::Add(sum, p);
    store_f32(d, p, out + j);
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

HWY_INLINE float max_of_row(const float* s, int64_t begin, int64_t end) {
  const hn::ScalableTag<float> d;
  auto high = hn::Set(d, -INFINITY);
  for_vectors(d, begin, end,
              [&](const auto& at) HWY_ATTR { high = hn::Max(high, at.load_or(d, s, -INFINITY)); });
  return hn::GetLane(hn::MaxOfLanes(d, high));
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // per-target include guard
