#include <vector>

#include "backend/cpu/dispatch.h"
#include "backend/cpu/kernels.h"
#include "base/parallel.h"
#include "base/reduce.h"

namespace nibble::backend::cpu {

void sum_rows(Stream& stream, const Tensor& x, Tensor& out, bool accumulate) {
  constexpr int64_t kRows = 128;
  const int64_t n = x.shape().last(), rows = x.shape().rows(), chunks = (rows + kRows - 1) / kRows;
  auto* partial =
      reinterpret_cast<float*>(stream.scratch(Stream::kPartialSlot, static_cast<size_t>(chunks * n) * 4));
  with_float(x.dtype(), "sum_rows", [&](auto tx) {
    const auto* px = x.data<typename decltype(tx)::type>();
    parallel_for(rows, kRows, [&](int64_t begin, int64_t end) {
      float* sum = partial + begin / kRows * n;
      std::fill_n(sum, n, 0.0f);
      for (int64_t r = begin; r < end; ++r)
        for (int64_t i = 0; i < n; ++i) sum[i] += to_float(px[r * n + i]);
    });
  });
  float* po = out.data<float>();
  for (int64_t i = 0; i < n; ++i) {
    float s = 0;
    for (int64_t c = 0; c < chunks; ++c) s += partial[c * n + i];
    po[i] = accumulate ? po[i] + s : s;
  }
}

void sum_of_squares(Stream&, const Tensor& x, Tensor& out) {
  constexpr int64_t kChunk = 4096;
  const int64_t n = x.numel();
  std::vector<double> partial(static_cast<size_t>((n + kChunk - 1) / kChunk));
  with_float(x.dtype(), "sum_of_squares", [&](auto tx) {
    const auto* px = x.data<typename decltype(tx)::type>();
    parallel_for(n, kChunk, [&](int64_t begin, int64_t end) {
      double lanes[8] = {};
      int64_t i = begin;
      for (; i + 8 <= end; i += 8)
        for (int64_t j = 0; j < 8; ++j)
          lanes[j] += static_cast<double>(to_float(px[i + j])) * static_cast<double>(to_float(px[i + j]));
      for (; i < end; ++i)
        lanes[i & 7] += static_cast<double>(to_float(px[i])) * static_cast<double>(to_float(px[i]));
      partial[static_cast<size_t>(begin / kChunk)] = tree_sum<double>(lanes);
    });
  });
  *out.data<float>() = static_cast<float>(tree_sum<double>(partial));
}

}  // namespace nibble::backend::cpu
