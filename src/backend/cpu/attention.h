// What the forward and backward of attention share: which keys a query sees, and the division of work.
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "backend/cpu/gemm_step.h"
#include "backend/kernels/attention.h"

namespace nibble::backend::cpu {

struct Segment {
  int64_t q_begin, q_count, k_begin, k_count;

  // Where query i stands among the segment's keys.
  int64_t position(int64_t i) const { return k_count - q_count + i; }
  // Keys [first_key, end_key) of the segment that its query i sees.
  int64_t end_key(int64_t i, const AttentionArgs& args) const {
    return args.causal ? std::clamp<int64_t>(k_count - q_count + i + 1, 0, k_count) : k_count;
  }
  int64_t first_key(int64_t i, const AttentionArgs& args) const {
    if (args.window <= 0) return 0;
    const int64_t last = args.causal ? k_count - q_count + i : k_count - 1;
    return std::max<int64_t>(0, last - args.window + 1);
  }
};

// What products of bf16 heads use: pairs stand along the width too.
inline Step attention_step(const AttentionArgs& args) {
  return args.head_width % 2 == 0 ? bf16_step() : Step::kFloat;
}

// ALiBi's slope of one head.
inline float alibi_slope(int64_t head, int64_t heads) {
  const auto lower = static_cast<double>(std::bit_floor(static_cast<uint64_t>(heads)));
  const auto h = static_cast<double>(head);
  const double power = h < lower ? (h + 1) / lower : (2 * (h - lower) + 1) / (2 * lower);
  return static_cast<float>(std::exp2(-8 * power));
}

// T5's bucket of a distance, key - query, in f32 as Transformers computes it.
inline int32_t relative_bucket(int64_t distance, bool both_ways, int64_t buckets, int64_t furthest) {
  const int64_t half = both_ways ? buckets / 2 : buckets, first = both_ways && distance > 0 ? half : 0;
  const int64_t n = both_ways ? std::abs(distance) : std::max<int64_t>(-distance, 0), exact = half / 2;
  if (n < exact) return static_cast<int32_t>(first + n);
  const float ratio =
      std::log(static_cast<float>(n) / static_cast<float>(exact)) /
      static_cast<float>(std::log(static_cast<double>(furthest) / static_cast<double>(exact)));
  const auto wide = exact + static_cast<int64_t>(ratio * static_cast<float>(half - exact));
  return static_cast<int32_t>(first + std::min(wide, half - 1));
}

// A relative bias by distance instead of by bucket, and which bucket a distance is in.
struct DistanceBias {
  static constexpr int64_t kBeyond = 64;  // vectors read past the last distance that is asked for
  int64_t reach = 0, buckets = 0;         // distances -reach … reach
  std::vector<int32_t> bucket;            // by reach + distance
  float* values = nullptr;

  int64_t width() const { return 2 * reach + 1; }
  // values of head h at distance 0; null without a bias
  const float* at(int64_t head) const {
    return values == nullptr ? nullptr : values + head * width() + reach;
  }

  // For segments of up to that many keys. `values` is then room for width() · heads floats, which fill()
  // writes.
  static DistanceBias over(const std::vector<Segment>& segments, const Tensor& bias,
                           const AttentionArgs& args) {
    DistanceBias b;
    if (!bias) return b;
    b.buckets = bias.size(0);
    for (const Segment& s : segments) b.reach = std::max(b.reach, s.k_count);
    b.reach += kBeyond;
    for (int64_t d = -b.reach; d <= b.reach; ++d)
      b.bucket.push_back(relative_bucket(d, !args.causal, b.buckets, args.bias_distance));
    return b;
  }
  void fill(const Tensor& bias, int64_t heads, float* room) {
    values = room;
    const float* table = bias.data<float>();
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < width(); ++i)
        values[h * width() + i] = table[bucket[static_cast<size_t>(i)] * heads + h];
  }
};

inline std::vector<Segment> read_segments(const Tensor& segments) {
  const int32_t* s = segments.data<int32_t>();
  std::vector<Segment> out;
  for (int64_t i = 0; i < segments.size(0); ++i, s += 4)
    if (s[1] > 0 && s[3] > 0) out.push_back({s[0], s[1], s[2], s[3]});
  return out;
}

// What the forward reads and writes (backend/kernels/attention.h).
struct AttentionOperands {
  const void *q, *k, *v;
  void* out;
  float* lse;
  DType dtype;  // of all but lse
  AttentionArgs args;
  const DistanceBias* bias;
};
// Segments of few query rows: nothing is packed.
void attention_by_rows(const AttentionOperands& f, const std::vector<Segment>& segments);

// A piece of one segment: rows [begin, begin + count) of head `head`.
struct AttentionItem {
  int64_t segment, head, begin, count;
};

// Every segment and head in tiles of `rows` of what `count_of` counts, the longest work first.
template <class Count>
std::vector<AttentionItem> attention_items(const std::vector<Segment>& segments, int64_t heads, int64_t rows,
                                           Count count_of) {
  std::vector<AttentionItem> items;
  for (size_t s = 0; s < segments.size(); ++s)
    for (int64_t end = count_of(segments[s]); end > 0; end = (end - 1) / rows * rows)
      for (int64_t h = 0; h < heads; ++h)
        items.push_back({static_cast<int64_t>(s), h, (end - 1) / rows * rows, end - (end - 1) / rows * rows});
  return items;
}

}  // namespace nibble::backend::cpu
