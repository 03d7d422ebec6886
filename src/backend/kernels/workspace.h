// What kernels ask of Stream::scratch() beside decoded weights, so that a plan can name it: on the meta
// device they ask for nothing. Bytes by slot; every kernel of a stream shares them, so the largest request
// counts.
#pragma once
#include <algorithm>
#include <array>

#include "backend/kernels/attention.h"
#include "backend/kernels/matmul.h"
#include "tensor/dtype.h"

namespace nibble::backend {

struct Workspace {
  int64_t kernel = 0, kernel2 = 0, partial = 0;
  std::array<int64_t, 5> local{};  // of each thread, by its own slots
  void include(const Workspace& other);
  int64_t bytes() const { return kernel + kernel2 + partial; }
  int64_t thread_bytes() const { return local[0] + local[1] + local[2] + local[3] + local[4]; }
};

// C = A · B on the CPU, of up to m rows, A, B and C as they lie and of these types, a pair of rank r of B's
// type beside it. With kByte B is codes, and b the type of the pair.
struct ProductWorkspace {
  int64_t m = 0, n = 0, k = 0;
  DType a = kF32, b = kF32, c = kF32;
  FixedPoint fixed_point = FixedPoint::kNone;
  int64_t r = 0;
};
Workspace cpu_matmul_workspace(const ProductWorkspace& product);
// Of a thin factor's gradient [r, n] over t rows.
Workspace cpu_thin_gradient_workspace(int64_t r, int64_t t);
// Of the gradients of a norm's weight and bias [columns], or of a sum of rows.
Workspace cpu_row_sums_workspace(int64_t rows, int64_t columns);
// Of attention and its backward over `tokens` keys in `sequences` segments of at most `longest`; with a
// relative bias of so many buckets.
Workspace cpu_attention_workspace(int64_t tokens, int64_t sequences, int64_t longest,
                                  const AttentionArgs& args, int64_t bias_buckets = 0);

}  // namespace nibble::backend
