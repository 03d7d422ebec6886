#include <cmath>

#include "backend/cpu/kernels.h"
#include "backend/cpu/simd_targets.h"
#include "base/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/cross_entropy.cpp"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway wants it:
#include "backend/cpu/exp-inl.h"
#include "backend/cpu/pair_operand-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

// e[i] · share, at the label less `factor`, rounded, over the same memory: what is written lies behind what
// is read.
template <Step kStep>
void round_gradient(const float* e, int64_t n, int32_t label, float share, float factor) {
  const hn::ScalableTag<float> d;
  const float at_label = e[label] * share - factor;
  BFloat16* const to = reinterpret_cast<BFloat16*>(const_cast<float*>(e));
  for_vectors(d, 0, n, [&](const auto& at) HWY_ATTR {
    at.store(d, hn::Mul(at.load(d, e), hn::Set(d, share)), operand_of<kStep>(to));
  });
  store_part(d, hn::Set(d, at_label), operand_of<kStep>(to + label), 1);
}

// One row of n scores: -log p(label); the row becomes (softmax - onehot) * factor where that is wanted.
float cross_entropy_row(float* row, int64_t n, int32_t label, float factor, LossGradient gradient,
                        [[maybe_unused]] Step step) {
  const hn::ScalableTag<float> d;
  auto highest = hn::Set(d, -INFINITY);
  for_vectors(d, 0, n,
              [&](const auto& at) HWY_ATTR { highest = hn::Max(highest, at.load_or(d, row, -INFINITY)); });
  const float high = hn::GetLane(hn::MaxOfLanes(d, highest)), score = row[label];
  const auto h = hn::Set(d, high);
  // Sums of up to 4096 values and then of those, so that a large vocabulary loses no digits.
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += 4096) {
    auto sum = hn::Zero(d);
    for_vectors(d, begin, std::min(n, begin + 4096), [&](const auto& at) HWY_ATTR {
      const auto e = fused_exp_f32(d, hn::Sub(at.load_or(d, row, -INFINITY), h));
      sum = hn::Add(sum, e);
      if (gradient != LossGradient::kNone) at.store(d, e, row);
    });
    total += hn::GetLane(hn::SumOfLanes(d, sum));
  }
  if (gradient == LossGradient::kBF16) {
    const auto share = static_cast<float>(factor / total);
#if HWY_TARGET == HWY_AVX3
    if (step == Step::kPair)
      round_gradient<Step::kPair>(row, n, label, share, factor);
    else
#endif
      round_gradient<Step::kFloat>(row, n, label, share, factor);
  } else if (gradient == LossGradient::kF32) {
    const auto share = hn::Set(d, static_cast<float>(factor / total));
    for_vectors(d, 0, n, [&](const auto& at) HWY_ATTR { at.store(d, hn::Mul(at.load(d, row), share), row); });
    row[label] -= factor;
  }
  return static_cast<float>(std::log(total)) + (high - score);
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::backend::cpu {
HWY_EXPORT(cross_entropy_row);

void cross_entropy(Stream&, Tensor& logits, const Tensor& labels, float factor, LossGradient gradient,
                   Tensor& losses) {
  const Step step = bf16_step();
  const int64_t n = logits.shape().rows(), vocabulary = logits.shape().last();
  const int32_t* label = labels.data<int32_t>();
  float* loss = losses.data<float>();
  float* rows = logits.data<float>();
  parallel_for(n, 4, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float* row = rows + r * vocabulary;
      if (label[r] >= 0) {
        loss[r] = HWY_DYNAMIC_DISPATCH(cross_entropy_row)(row, vocabulary, label[r], factor, gradient, step);
      } else {
        loss[r] = 0;
        if (gradient != LossGradient::kNone) std::fill_n(row, vocabulary, 0.0f);
      }
    }
  });
}

}  // namespace nibble::backend::cpu
#endif  // HWY_ONCE
