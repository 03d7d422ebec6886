// The requests of matmul_packed.cpp, thin_gradient.cpp, attention.cpp and attention_backward.cpp, from shapes
// alone; the plan's test holds them to what is measured.
#include "backend/kernels/workspace.h"

namespace nibble::backend {

Workspace cpu_matmul_workspace(int64_t m, int64_t n, int64_t k, DType c, int64_t r) {
  constexpr int64_t kFewRows = 96, kSlice = 2048, kPacked = 2 << 20, kPanel = 32;
  if (m <= kFewRows) return {};
  const int64_t slice = std::min((n + kPanel - 1) / kPanel * kPanel, kSlice),
                slab = std::min(k, std::max<int64_t>(kPacked / slice, 1));
  Workspace w;
  w.kernel = (slice * (slab + r) + (r + kPanel - 1) / kPanel * kPanel * (std::max(slab, k / 2) + m)) * 4;
  if (slab < k && c != kF32) w.partial = m * slice * 4;
  return w;
}

Workspace cpu_thin_gradient_workspace(int64_t r, int64_t t) {
  Workspace w;
  constexpr int64_t kGroup = 12;  // of rows, as AVX-512 has them; others take as much or less
  w.kernel = ((t + 1) * ((r + kGroup - 1) / kGroup * kGroup) + 4) * 4;
  return w;
}

Workspace cpu_attention_workspace(int64_t tokens, int64_t sequences, const AttentionArgs& args,
                                  int64_t bias_buckets) {
  constexpr int64_t kKeyPadding = 64;
  // Keys of each segment are padded; segments have at least tokens / sequences keys each, so they cannot all
  // waste the most.
  const int64_t shortest = tokens / std::max<int64_t>(sequences, 1);
  const int64_t keys =
      tokens + sequences * (shortest < kKeyPadding ? kKeyPadding - shortest : kKeyPadding - 1);
  const int64_t value_width = (args.head_width + kKeyPadding - 1) / kKeyPadding * kKeyPadding;
  const int64_t sums = tokens * args.heads * args.head_width * 4;
  Workspace w;
  w.kernel = std::max(keys * args.kv_heads * args.head_width * 4, sums);
  w.kernel2 = std::max(keys * args.kv_heads * value_width * 4, sums);
  if (bias_buckets > 0)
    w.partial = args.heads * (2 * (tokens + kKeyPadding) + 1 + sequences * bias_buckets) * 4;
  return w;
}

}  // namespace nibble::backend
