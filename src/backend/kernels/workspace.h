// What kernels ask of Stream::scratch() beside decoded weights, so that a plan can name it: on the meta
// device they ask for nothing. Bytes by slot; every kernel of a stream shares them, so the largest request
// counts.
#pragma once
#include <algorithm>

#include "backend/kernels/attention.h"

namespace nibble::backend {

struct Workspace {
  int64_t kernel = 0, kernel2 = 0, partial = 0;
  void include(const Workspace& other) {
    kernel = std::max(kernel, other.kernel);
    kernel2 = std::max(kernel2, other.kernel2);
    partial = std::max(partial, other.partial);
  }
  int64_t bytes() const { return kernel + kernel2 + partial; }
};

// Of C [m, n] = A [m, k] · B on the CPU, C of type `c`; of the same with a pair of rank r beside it.
Workspace cpu_matmul_workspace(int64_t m, int64_t n, int64_t k, DType c, int64_t r = 0);
// Of a thin factor's gradient [r, n] over t rows.
Workspace cpu_thin_gradient_workspace(int64_t r, int64_t t);
// Of attention and its backward over `tokens` keys in `sequences` segments; with a relative bias of so many
// buckets.
Workspace cpu_attention_workspace(int64_t tokens, int64_t sequences, const AttentionArgs& args,
                                  int64_t bias_buckets = 0);

}  // namespace nibble::backend
