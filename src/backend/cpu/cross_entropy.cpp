#include <algorithm>
#include <cmath>

#include "backend/cpu/kernels.h"
#include "base/parallel.h"

namespace nibble::backend::cpu {

void cross_entropy(Stream&, Tensor& logits, const Tensor& labels, float factor, bool gradient, Tensor& losses) {
  const int64_t n = logits.shape().rows(), vocabulary = logits.shape().last();
  const int32_t* label = labels.data<int32_t>();
  float* loss = losses.data<float>();
  parallel_for(n, 4, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float* row = logits.data<float>() + r * vocabulary;
      if (label[r] < 0) {
        loss[r] = 0;
        if (gradient) std::fill_n(row, vocabulary, 0.0f);
        continue;
      }
      const float high = *std::max_element(row, row + vocabulary);
      float sum = 0;
      for (int64_t i = 0; i < vocabulary; ++i) sum += std::exp(row[i] - high);
      const float lse = high + std::log(sum);
      loss[r] = lse - row[label[r]];
      if (!gradient) continue;
      for (int64_t i = 0; i < vocabulary; ++i) row[i] = std::exp(row[i] - lse) * factor;
      row[label[r]] -= factor;
    }
  });
}

}  // namespace nibble::backend::cpu
