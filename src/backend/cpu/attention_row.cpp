// Attention of single query rows against long caches, as generation has it: keys are read in the order in
// which they lie, a block of them for all heads of a row, and widened once for the heads that share them.
#include <hwy/cache_control.h>

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "backend/cpu/attention.h"
#include "backend/cpu/dispatch.h"
#include "backend/cpu/local_buffer.h"
#include "backend/cpu/simd_targets.h"
#include "base/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/attention_row.cpp"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway wants it:
#include "backend/cpu/attention_scores-inl.h"

#ifndef NIBBLE_CPU_ATTENTION_ROW
#define NIBBLE_CPU_ATTENTION_ROW
namespace nibble::backend::cpu {
// Heads [head, head + heads) of query row `row` of one segment.
struct RowItem {
  int64_t segment, row, head, heads;
};
inline constexpr int64_t kRowKeys = 16;  // keys of a block
}  // namespace nibble::backend::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

// sum[0, kVectors · lanes) += Σ_j scores[j] v[j · ld + …].
template <int kVectors, class T>
HWY_INLINE void weigh_values(const T* v, int64_t ld, const float* scores, int64_t count, float* sum) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;
  const auto each = [&](const auto& f) HWY_ATTR {
    f(0, s0);
    f(1, s1);
    if constexpr (kVectors >= 4) {
      f(2, s2);
      f(3, s3);
    }
    if constexpr (kVectors == 8) {
      f(4, s4);
      f(5, s5);
      f(6, s6);
      f(7, s7);
    }
  };
  each([&](int i, auto& s) HWY_ATTR { s = hn::LoadU(d, sum + i * lanes); });
  for (int64_t j = 0; j < count; ++j) {
    const auto p = hn::Set(d, scores[j]);
    const T* row = v + j * ld;
    each([&](int i, auto& s) HWY_ATTR { s = hn::MulAdd(p, load_f32(d, row + i * lanes), s); });
  }
  each([&](int i, auto& s) HWY_ATTR { hn::StoreU(s, d, sum + i * lanes); });
}

// The same for a head of any width.
template <class T>
HWY_INLINE void weigh_head(const T* v, int64_t ld, const float* scores, int64_t count, int64_t width,
                           float* sum) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t done = 0;  // columns, eight vectors at a time while they last: their sums stay in registers
  for (; done + 8 * lanes <= width; done += 8 * lanes)
    weigh_values<8>(v + done, ld, scores, count, sum + done);
  for (; done + 4 * lanes <= width; done += 4 * lanes)
    weigh_values<4>(v + done, ld, scores, count, sum + done);
  for (; done + 2 * lanes <= width; done += 2 * lanes)
    weigh_values<2>(v + done, ld, scores, count, sum + done);
  for (int64_t j = 0; done < width && j < count; ++j) {
    const auto p = hn::Set(d, scores[j]);
    for_vectors(d, done, width, [&](const auto& at) HWY_ATTR {
      at.store(d, hn::MulAdd(p, at.load(d, v + j * ld), at.load(d, sum)), sum);
    });
  }
}

// The sum over a vector's blocks of four lanes.
template <class D>
HWY_INLINE auto sum_of_blocks(D, hn::Vec<D> v) {
  if constexpr (hn::MaxLanes(D()) == 4) {
    return v;
  } else {
    const hn::Half<D> half;
    return sum_of_blocks(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  }
}

// scores[j] = scale · q · k[j] for kKeys keys from j on, which wait for one another's sums instead of for
// their own.
template <int kKeys, class T>
HWY_INLINE void scores_of_keys(const float* q, const T* k, int64_t ld, int64_t width, float scale,
                               float* scores) {
  const hn::ScalableTag<float> d;
  auto d0 = hn::Zero(d), d1 = d0, d2 = d0, d3 = d0;
  for_vectors(d, 0, width, [&](const auto& at) HWY_ATTR {
    const auto x = at.load(d, q);
    d0 = hn::MulAdd(x, at.load(d, k), d0);
    if constexpr (kKeys == 4) {
      d1 = hn::MulAdd(x, at.load(d, k + ld), d1);
      d2 = hn::MulAdd(x, at.load(d, k + 2 * ld), d2);
      d3 = hn::MulAdd(x, at.load(d, k + 3 * ld), d3);
    }
  });
  // Lane i of each block of four: a part of key i's sum.
  const hn::RepartitionToWide<decltype(d)> wide;
  const auto both = [&](auto x, auto y) HWY_ATTR {
    return hn::BitCast(wide, hn::Add(hn::InterleaveLower(d, x, y), hn::InterleaveUpper(d, x, y)));
  };
  const auto a = both(d0, d1), b = both(d2, d3);
  const auto parts = hn::Add(hn::BitCast(d, hn::InterleaveLower(wide, a, b)),
                             hn::BitCast(d, hn::InterleaveUpper(wide, a, b)));
  const hn::Full128<float> d4;
  const auto sums = hn::Mul(sum_of_blocks(d, parts), hn::Set(d4, scale));
  if constexpr (kKeys == 4)
    hn::StoreU(sums, d4, scores);
  else
    scores[0] = hn::GetLane(sums);
}

template <class T>
HWY_INLINE void scores_of_block(const float* q, const T* k, int64_t ld, int64_t count, int64_t width,
                                float scale, float* scores) {
  int64_t j = 0;
  for (; j + 4 <= count; j += 4) scores_of_keys<4>(q, k + j * ld, ld, width, scale, scores + j);
  for (; j < count; ++j) scores_of_keys<1>(q, k + j * ld, ld, width, scale, scores + j);
}

// Blocks of the keys (or values) of an item's heads: body(first head, heads, first key, keys, rows, ld),
// where the rows are f32 if several heads read them. What follows a block is fetched while it is worked on:
// rows of one head are too short and far apart for the processor to see them coming.
template <class T, class Body>
HWY_INLINE void over_blocks(const RowItem& item, const T* rows, int64_t first, int64_t end, int64_t group,
                            int64_t width, int64_t ld, const Body& body) {
  const hn::ScalableTag<float> d;
  float* wide = local_buffer(LocalSlot::kD, kRowKeys * width);
  for (int64_t key = first; key < end; key += kRowKeys) {
    const int64_t count = std::min(kRowKeys, end - key);
    for (int64_t head = item.head, next; head < item.head + item.heads; head = next) {
      next = std::min(item.head + item.heads, (head / group + 1) * group);
      const T* block = rows + key * ld + head / group * width;
      for (int64_t j = kRowKeys; j < kRowKeys + count; ++j)
        for (int64_t i = 0; i < width; i += 64 / static_cast<int64_t>(sizeof(T)))
          hwy::Prefetch(block + j * ld + i);
      if (std::is_same_v<T, float> || next - head == 1) {
        body(head, next - head, key, count, block, ld);
        continue;
      }
      for (int64_t j = 0; j < count; ++j)
        for_vectors(d, 0, width, [&](const auto& at) HWY_ATTR {
          at.store(d, at.load(d, block + j * ld), wide + j * width);
        });
      body(head, next - head, key, count, static_cast<const float*>(wide), width);
    }
  }
}

// Scores of every key that the row sees, softmax, weighted values.
template <class T>
void forward_row(const AttentionOperands& f, const Segment& s, const RowItem& item) {
  const hn::ScalableTag<float> d;
  const AttentionArgs& a = f.args;
  const int64_t K = a.head_width, ld = a.kv_heads * K, group = a.heads / a.kv_heads;
  const int64_t first = s.first_key(item.row, a), end = s.end_key(item.row, a), pitch = end - first + 64;
  const int64_t at_q = (s.q_begin + item.row) * a.heads + item.head;
  const T *k = static_cast<const T*>(f.k) + s.k_begin * ld, *v = static_cast<const T*>(f.v) + s.k_begin * ld;
  float* scores = local_buffer(LocalSlot::kA, item.heads * pitch);
  float* query = local_buffer(LocalSlot::kB, item.heads * K);
  float* sums = local_buffer(LocalSlot::kC, item.heads * K);
  for_vectors(d, 0, item.heads * K, [&](const auto& at) HWY_ATTR {
    at.store(d, at.load(d, static_cast<const T*>(f.q) + at_q * K), query);
  });
  std::fill_n(sums, item.heads * K, 0.0f);
  over_blocks(
      item, k, first, end, group, K, ld,
      [&](int64_t head, int64_t heads, int64_t key, int64_t count, const auto* rows, int64_t pace) HWY_ATTR {
        for (int64_t h = head - item.head; h < head - item.head + heads; ++h)
          scores_of_block(query + h * K, rows, pace, count, K, a.scale, scores + h * pitch + key - first);
      });
  float* inverse = query;  // no longer needed
  for (int64_t h = 0; h < item.heads; ++h) {
    float* row = scores + h * pitch;
    const int64_t count = end - first;
    if (const AdjustScores adjust(a, item.head + h, f.bias->at(item.head + h)); adjust.any() && count > 0)
      adjust_row(adjust, row, count, first - s.position(item.row));
    const float high = max_of_row(row, 0, count);
    const float total = count > 0 ? softmax_row<Step::kFloat>(row, count, 0, count, high, row) : 0.0f;
    f.lse[at_q + h] = total != 0 ? high + std::log(total) : 0.0f;
    inverse[h] = total != 0 ? 1.0f / total : 0.0f;
  }
  over_blocks(item, v, first, end, group, K, ld,
              [&](int64_t head, int64_t heads, int64_t key, int64_t count, const auto* rows, int64_t pace)
                  HWY_ATTR {
                    for (int64_t h = head - item.head; h < head - item.head + heads; ++h)
                      weigh_head(rows, pace, scores + h * pitch + key - first, count, K, sums + h * K);
                  });
  for (int64_t h = 0; h < item.heads; ++h) {
    const auto factor = hn::Set(d, inverse[h]);
    for_vectors(d, 0, K, [&](const auto& at) HWY_ATTR {
      at.store(d, hn::Mul(at.load(d, sums + h * K), factor), static_cast<T*>(f.out) + (at_q + h) * K);
    });
  }
}

void row_item(const AttentionOperands& f, const Segment& s, const RowItem& item) {
  f.dtype == kF32 ? forward_row<float>(f, s, item) : forward_row<BFloat16>(f, s, item);
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::backend::cpu {
HWY_EXPORT(row_item);

void attention_by_rows(const AttentionOperands& f, const std::vector<Segment>& segments) {
  int64_t rows = 0;
  for (const Segment& s : segments) rows += s.q_count;
  // Whole rows where there are enough for every thread to have several, single heads where not.
  const int64_t heads = rows >= 4 * threads() ? f.args.heads : 1;
  std::vector<RowItem> items;
  for (size_t s = 0; s < segments.size(); ++s)
    for (int64_t row = segments[s].q_count - 1; row >= 0; --row)
      for (int64_t head = 0; head < f.args.heads; head += heads)
        items.push_back({static_cast<int64_t>(s), row, head, heads});
  parallel_for(static_cast<int64_t>(items.size()), 1, [&](int64_t i, int64_t) {
    const RowItem& item = items[static_cast<size_t>(i)];
    HWY_DYNAMIC_DISPATCH(row_item)(f, segments[static_cast<size_t>(item.segment)], item);
  });
}

}  // namespace nibble::backend::cpu
#endif  // HWY_ONCE
