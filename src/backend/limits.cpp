#include "backend/limits.h"

#include <dnnl.h>

#include <algorithm>
#include <vector>

#include "base/parallel.h"
#include "base/process.h"

namespace nibble::backend {
namespace {

constexpr int64_t kRows = 768, kWide = 1536, kNarrow = 576;

// The best of both directions of a feed-forward projection, divided over rows here or by the library itself.
double measure() {
  const std::vector<float> a(kRows * kWide, 0.5f), b(kNarrow * kWide, 0.25f);
  std::vector<float> c(kRows * kWide);
  double best = 0;
  const double began = now_seconds();
  do {
    for (const auto& [inner, columns] : {std::pair(kNarrow, kWide), std::pair(kWide, kNarrow)})
      for (const int64_t tile : {int64_t{64}, int64_t{128}, kRows}) {
        const double start = now_seconds();
        // Inside a parallel region oneDNN works in the calling thread alone.
        parallel_for(kRows, tile, [&, k = inner, n = columns](int64_t begin, int64_t end) {
          dnnl_sgemm('N', 'N', end - begin, n, k, 1.0f, a.data() + begin * k, k, b.data(), n, 0.0f,
                     c.data() + begin * n, n);
        });
        best = std::max(best, 2.0 * kRows * kWide * kNarrow / (now_seconds() - start));
      }
  } while (now_seconds() - began < 0.5);
  return best;
}

}  // namespace

double matmul_limit_flops() {
  static const double limit = measure();
  return limit;
}

}  // namespace nibble::backend
