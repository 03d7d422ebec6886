#include "backend/limits.h"

#include <omp.h>
#include <pthread.h>
#include <dnnl.hpp>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstring>
#include <map>
#include <unordered_map>

#include "backend/cpu/gemm_step.h"
#include "base/parallel.h"
#include "base/process.h"

namespace nibble::backend {
namespace {

constexpr int64_t kRows = 768, kWide = 1536, kNarrow = 576;
constexpr int64_t kTile = 128;  // rows of a thread's part, or half of them

// Signals wait while this lives, in this thread and in those that it starts. oneDNN 2.6's products of AVX-512
// use the stack's register for something else: what a handler then leaves "on the stack" lands in their
// operands and in the heap beside them.
class HoldSignals {
 public:
  HoldSignals() {
    sigset_t all;
    ::sigfillset(&all);
    for (const int own_fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP})
      ::sigdelset(&all, own_fault);
    ::pthread_sigmask(SIG_BLOCK, &all, &before_);
  }
  ~HoldSignals() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  HoldSignals(const HoldSignals&) = delete;
  HoldSignals& operator=(const HoldSignals&) = delete;

 private:
  sigset_t before_;
};

// The library's bf16 product of one shape, its operands in the layout that it likes best.
class Bf16Product {
 public:
  explicit Bf16Product(const ProductShape& s) : stream_(engine()) {
    using Type = dnnl::memory::data_type;
    using Tag = dnnl::memory::format_tag;
    const dnnl::matmul::primitive_desc chosen(
        dnnl::matmul::desc({{s.m, s.k}, Type::bf16, Tag::ab}, {{s.k, s.n}, Type::bf16, Tag::any},
                           {{s.m, s.n}, Type::bf16, Tag::ab}),
        engine());
    product_ = dnnl::matmul(chosen);
    const auto filled = [&](const dnnl::memory::desc& layout) {
      dnnl::memory memory(layout, engine());
      std::fill_n(static_cast<uint16_t*>(memory.get_data_handle()), layout.get_size() / 2,
                  uint16_t{0x3F00});  // 0.5
      return memory;
    };
    operands_ = {{DNNL_ARG_SRC, filled(chosen.src_desc())},
                 {DNNL_ARG_WEIGHTS, filled(chosen.weights_desc())},
                 {DNNL_ARG_DST, filled(chosen.dst_desc())}};
  }
  double seconds() {
    ::omp_set_num_threads(threads());
    const HoldSignals hold;
    const double start = now_seconds();
    product_.execute(stream_, operands_);
    stream_.wait();
    return now_seconds() - start;
  }

 private:
  static const dnnl::engine& engine() {
    static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
    return cpu;
  }
  dnnl::stream stream_;
  dnnl::matmul product_;
  std::unordered_map<int, dnnl::memory> operands_;
};

// Operands of any of `shapes`, and the best time of one product.
class Library {
 public:
  Library(const std::vector<ProductShape>& shapes, DType compute) : type_(limit_dtype(compute)) {
    if (type_ == kBF16) return;
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
  // Divided over rows here, each thread's part being the library's of one thread, or by the library itself.
  double seconds(const ProductShape& s) {
    if (type_ == kBF16) return bf16_.try_emplace({s.m, s.n, s.k}, s).first->second.seconds();
    double best = 1e30;
    for (const int64_t tile : {kTile / 2, kTile, s.m}) {
      const double start = now_seconds();
      parallel_for(s.m, tile, [&](int64_t begin, int64_t end) {
        ::omp_set_num_threads(tile < s.m ? 1 : threads());  // of calls from this thread
        const HoldSignals hold;
        dnnl_sgemm('N', 'N', end - begin, s.n, s.k, 1.0f, a_.data() + begin * s.k, s.k, b_.data(), s.n, 0.0f,
                   c_.data() + begin * s.n, s.n);
      });
      best = std::min(best, now_seconds() - start);
    }
    return best;
  }

 private:
  DType type_;
  std::vector<float> a_, b_, c_;
  std::map<std::array<int64_t, 3>, Bf16Product> bf16_;
};

double measure(DType compute) {
  const std::vector<ProductShape> shapes = {{kRows, kWide, kNarrow}, {kRows, kNarrow, kWide}};
  Library library(shapes, compute);
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

DType limit_dtype(DType compute) {
  return compute == kBF16 && cpu::bf16_step() == cpu::Step::kPair ? kBF16 : kF32;
}

int64_t matmul_limit_bytes(DType compute) {
  constexpr int64_t kCode = 2'000'000;  // pages of the library that run first then
  if (limit_dtype(compute) == kBF16)
    return 2 * (kRows * kNarrow + kNarrow * kWide + kRows * kWide) * 2 + kCode;
  // In f32 one set of operands serves both shapes, and each thread packs all of B and its tile of A.
  return (2 * kRows + kNarrow) * kWide * 4 + threads() * (kNarrow + kTile) * kWide * 4 + kCode;
}

double matmul_limit_flops(DType compute) {
  static double measured[2] = {};
  const DType type = limit_dtype(compute);
  double& limit = measured[type == kBF16];
  if (limit == 0) limit = measure(type);
  return limit;
}

double product_limit_seconds(const std::vector<ProductShape>& shapes, int repetitions, DType compute) {
  Library library(shapes, compute);
  double total = 0;
  std::vector<double> times(static_cast<size_t>(repetitions));
  for (const ProductShape& s : shapes) {
    library.seconds(s);  // makes what it needs
    for (double& time : times) time = library.seconds(s);
    const auto middle = times.begin() + repetitions / 2;
    std::nth_element(times.begin(), middle, times.end());
    total += s.count * *middle;
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
