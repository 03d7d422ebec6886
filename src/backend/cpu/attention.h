// What the forward and backward of attention share: which keys a query sees, and the division of work.
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

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

// ALiBi's slope of one head.
inline float alibi_slope(int64_t head, int64_t heads) {
  const auto lower = static_cast<double>(std::bit_floor(static_cast<uint64_t>(heads)));
  const auto h = static_cast<double>(head);
  const double power = h < lower ? (h + 1) / lower : (2 * (h - lower) + 1) / (2 * lower);
  return static_cast<float>(std::exp2(-8 * power));
}

inline std::vector<Segment> read_segments(const Tensor& segments) {
  const int32_t* s = segments.data<int32_t>();
  std::vector<Segment> out;
  for (int64_t i = 0; i < segments.size(0); ++i, s += 4)
    if (s[1] > 0 && s[3] > 0) out.push_back({s[0], s[1], s[2], s[3]});
  return out;
}

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
