#include "backend/limits.h"

#include <dnnl.h>

#include <algorithm>
#include <cstring>

#include "base/parallel.h"
#include "base/process.h"

namespace nibble::backend {
namespace {

constexpr int64_t kRows = 768, kWide = 1536, kNarrow = 576;

// Operands of any of `shapes`, and the best time of one product.
class Library {
 public:
  explicit Library(const std::vector<ProductShape>& shapes) {
    size_t a = 0, b = 0, c = 0;
    for (const ProductShape& s : shapes) {
      a = std::max(a, static_cast<size_t>(s.m * s.k));
      b = std::max(b, static_cast<size_t>(s.k * s.n));
      c = std::max(c, static_cast<size_t>(s.m * s.n));
    }
    a_.assign(a, 0.5f);
    b_.assign(b, 0.25f);
    c_.assign(c, 0);
  }
  // Divided over rows here or by the library itself: inside a parallel region it works in the calling thread
  // alone.
  double seconds(const ProductShape& s) {
    double best = 1e30;
    for (const int64_t tile : {int64_t{64}, int64_t{128}, s.m}) {
      const double start = now_seconds();
      parallel_for(s.m, tile, [&](int64_t begin, int64_t end) {
        dnnl_sgemm('N', 'N', end - begin, s.n, s.k, 1.0f, a_.data() + begin * s.k, s.k, b_.data(), s.n, 0.0f,
                   c_.data() + begin * s.n, s.n);
      });
      best = std::min(best, now_seconds() - start);
    }
    return best;
  }

 private:
  std::vector<float> a_, b_, c_;
};

double measure() {
  const std::vector<ProductShape> shapes = {{kRows, kWide, kNarrow}, {kRows, kNarrow, kWide}};
  Library library(shapes);
  double best = 0;
  const double began = now_seconds();
  do {
    for (const ProductShape& s : shapes)
      best = std::max(best, 2.0 * kRows * kWide * kNarrow / library.seconds(s));
  } while (now_seconds() - began < 0.5);
  return best;
}

constexpr int64_t kBytes = 256 << 20, kPart = 1 << 20;

template <class Body>
double best_rate(double bytes, const Body& body) {
  double best = 0;
  for (int i = 0; i < 5; ++i) {
    const double start = now_seconds();
    parallel_for(kBytes, kPart, body);
    best = std::max(best, bytes / (now_seconds() - start));
  }
  return best;
}

}  // namespace

double matmul_limit_flops() {
  static const double limit = measure();
  return limit;
}

double product_limit_seconds(const std::vector<ProductShape>& shapes, int repetitions) {
  Library library(shapes);
  double total = 0;
  for (const ProductShape& s : shapes) {
    double best = library.seconds(s);
    for (int i = 1; i < repetitions; ++i) best = std::min(best, library.seconds(s));
    total += s.count * best;
  }
  return total;
}

double read_bandwidth() {
  const std::vector<uint64_t> values(kBytes / 8, 1);
  std::vector<uint64_t> sums(kBytes / kPart);
  return best_rate(static_cast<double>(kBytes), [&](int64_t begin, int64_t end) {
    uint64_t s[8] = {};
    for (int64_t i = begin / 8; i < end / 8; i += 8)
      for (int64_t j = 0; j < 8; ++j) s[j] += values[static_cast<size_t>(i + j)];
    sums[static_cast<size_t>(begin / kPart)] = s[0] + s[1] + s[2] + s[3] + s[4] + s[5] + s[6] + s[7];
  });
}

double copy_bandwidth() {
  const std::vector<char> from(kBytes, 1);
  std::vector<char> to(kBytes, 0);
  return best_rate(2.0 * static_cast<double>(kBytes), [&](int64_t begin, int64_t end) {
    std::memcpy(to.data() + begin, from.data() + begin, static_cast<size_t>(end - begin));
  });
}

}  // namespace nibble::backend
