// The requests of matmul_packed.cpp, thin_gradient.cpp, norm.cpp, layer_norm.cpp, reduce.cpp, attention.cpp
// and attention_backward.cpp, from shapes alone; the tests of the plan and of the workspace hold them to what
// is measured.
#include "backend/kernels/workspace.h"

#include "backend/cpu/matmul.h"

namespace nibble::backend {

void Workspace::include(const Workspace& other) {
  kernel = std::max(kernel, other.kernel);
  kernel2 = std::max(kernel2, other.kernel2);
  partial = std::max(partial, other.partial);
  for (size_t i = 0; i < local.size(); ++i) local[i] = std::max(local[i], other.local[i]);
}

Workspace cpu_matmul_workspace(const ProductWorkspace& w) {
  using namespace cpu;
  if (w.m == 0 || w.n == 0 || w.k == 0) return {};
  const LowRank pair{.r = w.r, .p = {.dtype = w.b}, .q = {.dtype = w.b}, .t_dtype = w.c};
  Product product{.m = w.m,
                  .n = w.n,
                  .k = w.k,
                  .a = {.dtype = w.a},
                  .b = {.dtype = w.b},
                  .c_dtype = w.c,
                  .low_rank = w.r > 0 ? &pair : nullptr};
  Workspace all;
  for (const int64_t m : {w.m, std::min(w.m, kFewRows)}) {
    product.m = m;
    product.step = step_of(w.fixed_point);
    product.step = step_of_product(product);
    Workspace of_rows;
    of_rows.local = local_counts_of(product);
    for (int64_t& count : of_rows.local) count *= 4;
    if (m > kFewRows) {
      const Packing f = packing_of(product);
      of_rows.kernel = (f.b + f.q + f.p + f.t) * 4;
      of_rows.partial = f.sums * 4;
    }
    all.include(of_rows);
  }
  return all;
}

Workspace cpu_thin_gradient_workspace(int64_t r, int64_t t) {
  constexpr int64_t kBlock = 256, kColumns = 96, kMostGroup = 12;
  const int64_t padded = r + kMostGroup - 1;
  Workspace w;
  w.kernel = ((t + 1) * padded + 4) * 4;
  w.local = {0, kBlock * kColumns * 4, padded * kColumns * 4};
  return w;
}

Workspace cpu_row_sums_workspace(int64_t rows, int64_t columns) {
  constexpr int64_t kRows = 64;  // of one partial sum
  Workspace w;
  w.partial = (rows + kRows - 1) / kRows * columns * 4;
  return w;
}

Workspace cpu_attention_workspace(int64_t tokens, int64_t sequences, int64_t longest,
                                  const AttentionArgs& args, int64_t bias_buckets) {
  constexpr int64_t kKeyPadding = 64, kQueryTile = 64, kKeyTile = 96, kGroup = 12;
  // Keys of each segment are padded; segments have at least tokens / sequences keys each, so they cannot all
  // waste the most.
  const int64_t shortest = tokens / std::max<int64_t>(sequences, 1);
  const int64_t keys =
      tokens + sequences * (shortest < kKeyPadding ? kKeyPadding - shortest : kKeyPadding - 1);
  const int64_t K = args.head_width, value_width = (K + kKeyPadding - 1) / kKeyPadding * kKeyPadding;
  const int64_t sums = tokens * args.heads * K * 4;
  Workspace w;
  w.kernel = std::max(keys * args.kv_heads * K * 4, sums);
  w.kernel2 = std::max(keys * args.kv_heads * value_width * 4, sums);
  // Backward's, which are larger than forward's but for the scores of a query tile.
  const int64_t distances = bias_buckets > 0 ? 2 * (longest + kKeyPadding) + 1 : 1;
  w.local = {(2 * (longest + kGroup) * K + longest * value_width + 16) * 4,
             std::max((longest + 1) * value_width, 48 * (256 + int64_t{16})) * 4,
             (5 * kQueryTile * value_width + 2 * kQueryTile) * 4, 2 * kKeyTile * (kQueryTile + 16) * 4,
             (kKeyTile * (kQueryTile + kGroup) + 16 + distances) * 4};
  if (bias_buckets > 0)
    w.partial = args.heads * (2 * (tokens + kKeyPadding) + 1 + sequences * bias_buckets) * 4;
  return w;
}

}  // namespace nibble::backend
