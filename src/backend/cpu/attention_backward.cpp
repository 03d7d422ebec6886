// Backward attention, one query head of one segment at a time. Scores are made again transposed (keys by
// queries), so that their tiles are operands as they lie:   Sᵀ = K Qᵀ   dPᵀ = V dOᵀ   dV += Pᵀ dO   dK += dSᵀ
// Q   dQ += dS K with P = exp(S - lse) and dS = P (dP - Δ), Δ = Σ dO · O over the head (Dao et al. 2022,
// algorithm 4). Each head has its own f32 sums of dK and dV; the heads of a group are then added in order.
#include <cstring>

#include "backend/cpu/attention.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/local_buffer.h"
#include "backend/cpu/simd_targets.h"
#include "base/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/attention_backward.cpp"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway wants it:
#include "backend/cpu/attention_scores-inl.h"
#include "backend/cpu/gemm-inl.h"

#ifndef NIBBLE_CPU_ATTENTION_BACKWARD
#define NIBBLE_CPU_ATTENTION_BACKWARD
namespace nibble::backend::cpu {
struct AttentionBackward {
  const void *dout, *q, *k, *v, *out;
  const float* lse;
  void *dq, *dk, *dv;
  DType dtype;
  Step step;  // of all five products
  AttentionArgs args;
  // f32 sums of one head of one segment start at (keys of the segments before it · heads + head · its keys) *
  // width.
  float *dk_sums, *dv_sums;
  const Segment* segments;
  const int64_t* offsets;
  const DistanceBias* bias;
  float* bias_sums;  // [segment, head, bucket], where the bias has a gradient; else null
};
inline constexpr int64_t kQueryTile = 64;  // a multiple of every panel width
inline constexpr int64_t kKeyTile = 96;    // a multiple of twelve
}  // namespace nibble::backend::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

// What a tile of queries needs: its rows as both operands of products, and its statistics.
struct QueryTile {
  float *q_columns, *do_columns;  // panels of Qᵀ and dOᵀ [K, queries]
  float *q_rows, *do_rows;        // panels of Q and dO [queries, K]
  float *lse, *delta;             // [kQueryTile]
};

template <class T, Step kStep>
void load_query_tile(const AttentionBackward& f, int64_t at, int64_t rows, const QueryTile& t) {
  const hn::ScalableTag<float> d;
  const int64_t K = f.args.head_width, H = f.args.heads, ld = H * K, panel = gemm_panel_width();
  const T *q = static_cast<const T*>(f.q) + at * K, *dout = static_cast<const T*>(f.dout) + at * K;
  const T* out = static_cast<const T*>(f.out) + at * K;
  for (int64_t j = 0; j < rows; j += panel) {
    pack_panel_transposed_for<kStep>(q + j * ld, ld, K, rows - j, t.q_columns + j * steps_of<kStep>(K));
    pack_panel_transposed_for<kStep>(dout + j * ld, ld, K, rows - j, t.do_columns + j * steps_of<kStep>(K));
  }
  pack_panels_for<kStep>(q, ld, rows, K, t.q_rows, steps_of<kStep>(rows) * panel);
  pack_panels_for<kStep>(dout, ld, rows, K, t.do_rows, steps_of<kStep>(rows) * panel);
  for (int64_t i = 0; i < kQueryTile; ++i) t.lse[i] = t.delta[i] = 0;
  for (int64_t i = 0; i < rows; ++i) {
    auto dot = hn::Zero(d);
    for_vectors(d, 0, K, [&](const auto& p) HWY_ATTR {
      dot = hn::MulAdd(p.load(d, dout + i * ld), p.load(d, out + i * ld), dot);
    });
    t.delta[i] = hn::GetLane(hn::SumOfLanes(d, dot));
    t.lse[i] = f.lse[at + i * H];
  }
}

// p: Sᵀ -> Pᵀ,  dp: dPᵀ -> dSᵀ · scale, for the query tile at `query` and the keys at `key`; each row as
// values of type P where its floats lay. bias_sums, by distance from its middle, gets dS; null: nobody wants
// it.
template <Step kStep>
HWY_INLINE void softmax_backward_tile(const Segment& s, const AttentionArgs& a, int64_t query, int64_t rows,
                                      int64_t key, int64_t keys, const AdjustScores& adjust,
                                      const QueryTile& t, float* p, float* dp, int64_t ld, float* bias_sums) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const bool whole = key >= s.first_key(query + rows - 1, a) && key + keys <= s.end_key(query, a);
  const auto scale = hn::Set(d, a.scale);
  const bool adjusts = adjust.any();
  for (int64_t j = 0; j < keys; ++j, p += ld, dp += ld) {
    // Queries [first, end) of the tile see this key.
    int64_t first = 0, end = rows;
    if (!whole) {
      while (first < rows && s.end_key(query + first, a) <= key + j) ++first;
      while (end > first && s.first_key(query + end - 1, a) > key + j) --end;
    }
    for (int64_t i = 0; i < rows; i += lanes) {  // rows are padded to whole vectors
      auto score = hn::LoadU(d, p + i), slope = scale;
      if (adjusts) {
        score = adjust(d, score, key + j - s.position(query + i), false, &slope);
        slope = hn::Mul(slope, scale);
      }
      auto e = exp_of_score<kStep>(d, score, hn::LoadU(d, t.lse + i));
      auto ds = hn::Mul(e, hn::Sub(hn::LoadU(d, dp + i), hn::LoadU(d, t.delta + i)));
      if (i < first || i + lanes > end) {
        const auto seen = lanes_within(d, i, first, end);
        e = hn::IfThenElseZero(seen, e);
        ds = hn::IfThenElseZero(seen, ds);
      }
      if (bias_sums != nullptr) {  // distances fall from query to query
        float* sums = bias_sums + key + j - s.position(query + i) - lanes + 1;
        hn::StoreU(hn::Add(hn::LoadU(d, sums), hn::Reverse(d, ds)), d, sums);
      }
      store_f32(d, e, operand_over<kStep>(p) + i);
      store_f32(d, hn::Mul(ds, slope), operand_over<kStep>(dp) + i);
    }
  }
}

template <class T, Step kStep>
void backward_head(const AttentionBackward& f, const AttentionItem& item) {
  using P = std::conditional_t<kStep == Step::kFloat, float, BFloat16>;
  const hn::ScalableTag<float> d;
  const Segment& s = f.segments[item.segment];
  const AttentionArgs& a = f.args;
  const int64_t K = a.head_width, H = a.heads, n = s.k_count, panel = gemm_panel_width();
  const int64_t ld_k = a.kv_heads * K, at_k = s.k_begin * ld_k + item.head / (H / a.kv_heads) * K;
  const int64_t depth = steps_of<kStep>(K);
  const int64_t padded = (K + 63) / 64 * 64, tile = kQueryTile * padded, ld = kQueryTile + 16;
  // Keys and values by groups of rows, and keys as panels of K [keys, K] for dQ: once for the head.
  float* k_rows = local_buffer(LocalSlot::kA, 2 * (n + kGemmRows) * K + n * padded + 16);
  float* v_rows = k_rows + (n + kGemmRows) * K;
  float* k_panels = local_buffer(LocalSlot::kB, (n + 1) * padded);
  const T *k = static_cast<const T*>(f.k) + at_k, *v = static_cast<const T*>(f.v) + at_k;
  for (int64_t i = 0; i < n; i += kGemmRows) {
    pack_rows_for<kStep>(k + i * ld_k, ld_k, K, std::min(kGemmRows, n - i), k_rows + i * depth);
    pack_rows_for<kStep>(v + i * ld_k, ld_k, K, std::min(kGemmRows, n - i), v_rows + i * depth);
  }
  pack_panels_for<kStep>(k, ld_k, n, K, k_panels, steps_of<kStep>(n) * panel);
  float* query = local_buffer(LocalSlot::kC, 5 * tile + 2 * kQueryTile);
  const QueryTile t{query,
                    query + tile,
                    query + 2 * tile,
                    query + 3 * tile,
                    query + 5 * tile,
                    query + 5 * tile + kQueryTile};
  float* dq = query + 4 * tile;
  float* p = local_buffer(LocalSlot::kD, 2 * kKeyTile * ld);
  float* dp = p + kKeyTile * ld;
  const int64_t ds_floats = kKeyTile * (kQueryTile + kGemmRows) + 16, distances = f.bias->width();
  float* ds = local_buffer(LocalSlot::kE, ds_floats + distances);
  float* by_distance = f.bias_sums != nullptr ? ds + ds_floats : nullptr;
  if (by_distance != nullptr) std::fill_n(by_distance, distances, 0.0f);
  float* bias_sums = by_distance != nullptr ? by_distance + f.bias->reach : nullptr;
  const AdjustScores adjust(a, item.head, f.bias->at(item.head));
  float* dk = f.dk_sums + (f.offsets[item.segment] * H + item.head * n) * K;
  float* dv = f.dv_sums + (f.offsets[item.segment] * H + item.head * n) * K;
  std::fill_n(dk, n * K, 0.0f);
  std::fill_n(dv, n * K, 0.0f);
  for (int64_t i0 = 0; i0 < s.q_count; i0 += kQueryTile) {
    const int64_t rows = std::min(kQueryTile, s.q_count - i0), at = (s.q_begin + i0) * H + item.head;
    load_query_tile<T, kStep>(f, at, rows, t);
    std::fill_n(dq, rows * padded, 0.0f);
    const int64_t end = s.end_key(i0 + rows - 1, a);
    for (int64_t j0 = s.first_key(i0, a) / kKeyTile * kKeyTile; j0 < end; j0 += kKeyTile) {
      const int64_t keys = std::min(kKeyTile, end - j0);
      gemm_block<RowsOfA::kPacked, kStep>(keys, rows, depth, a.scale, k_rows + j0 * depth, kGemmRows * depth,
                                          t.q_columns, panel * depth, Put::kSet, p, ld);
      gemm_block<RowsOfA::kPacked, kStep>(keys, rows, depth, 1.0f, v_rows + j0 * depth, kGemmRows * depth,
                                          t.do_columns, panel * depth, Put::kSet, dp, ld);
      softmax_backward_tile<kStep>(s, a, i0, rows, j0, keys, adjust, t, p, dp, ld, bias_sums);
      const int64_t of_rows = steps_of<kStep>(rows), of_keys = steps_of<kStep>(keys);
      gemm_block<RowsOfA::kAsStored, kStep>(keys, K, of_rows, 1.0f, p, ld, t.do_rows, of_rows * panel,
                                            Put::kAdd, dv + j0 * K, K);
      gemm_block<RowsOfA::kAsStored, kStep>(keys, K, of_rows, 1.0f, dp, ld, t.q_rows, of_rows * panel,
                                            Put::kAdd, dk + j0 * K, K);
      const int64_t ld_ds = kStep == Step::kFloat ? ld : 2 * ld;
      for (int64_t i = 0; i < rows; i += kGemmRows)
        pack_rows_transposed_for<kStep>(reinterpret_cast<const P*>(dp) + i, ld_ds, keys,
                                        std::min(kGemmRows, rows - i), ds + i * of_keys);
      gemm_block<RowsOfA::kPacked, kStep>(rows, K, of_keys, 1.0f, ds, kGemmRows * of_keys,
                                          k_panels + steps_of<kStep>(j0) * panel, steps_of<kStep>(n) * panel,
                                          Put::kAdd, dq, padded);
    }
    for (int64_t i = 0; i < rows; ++i) {
      T* to = static_cast<T*>(f.dq) + (at + i * H) * K;
      for_vectors(d, 0, K, [&](const auto& w) HWY_ATTR { w.store(d, w.load(d, dq + i * padded), to); });
    }
  }
  if (by_distance == nullptr) return;
  float* sums = f.bias_sums + (item.segment * H + item.head) * f.bias->buckets;
  std::fill_n(sums, f.bias->buckets, 0.0f);
  for (int64_t i = f.bias->reach - n; i <= f.bias->reach + n; ++i)
    sums[f.bias->bucket[static_cast<size_t>(i)]] += by_distance[i];
}

// dK and dV of some keys of one key head: its query heads' sums in order.
template <class T>
void add_heads(const AttentionBackward& f, const AttentionItem& item) {
  const hn::ScalableTag<float> d;
  const Segment& s = f.segments[item.segment];
  const int64_t K = f.args.head_width, G = f.args.kv_heads, group = f.args.heads / G, n = s.k_count;
  const int64_t sums = (f.offsets[item.segment] * f.args.heads + item.head * group * n) * K;
  for (int64_t j = item.begin; j < item.begin + item.count; ++j) {
    const int64_t to = ((s.k_begin + j) * G + item.head) * K;
    for (const auto& [from, out] : {std::pair{f.dk_sums, f.dk}, std::pair{f.dv_sums, f.dv}})
      for_vectors(d, 0, K, [&, from = from, out = out](const auto& w) HWY_ATTR {
        auto sum = w.load(d, from + sums + j * K);
        for (int64_t h = 1; h < group; ++h) sum = hn::Add(sum, w.load(d, from + sums + (h * n + j) * K));
        w.store(d, sum, static_cast<T*>(out) + to);
      });
  }
}

void backward_item(const AttentionBackward& f, const AttentionItem& item) {
  with_step(f.dtype, f.step, [&](auto type, auto step) { backward_head<decltype(type), step()>(f, item); });
}
void add_item(const AttentionBackward& f, const AttentionItem& item) {
  f.dtype == kF32 ? add_heads<float>(f, item) : add_heads<BFloat16>(f, item);
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::backend::cpu {
HWY_EXPORT(backward_item);
HWY_EXPORT(add_item);

void attention_backward(Stream& stream, const Tensor& dout, const Tensor& q, const Tensor& k, const Tensor& v,
                        const Tensor& bias, const Tensor& out, const Tensor& lse, const Tensor& segments,
                        AttentionArgs args, Tensor& dq, Tensor& dk, Tensor& dv, Tensor& dbias,
                        bool accumulate_dbias) {
  for (const Tensor* t : {&dout, &q, &k, &v, &out, static_cast<const Tensor*>(&dq),
                          static_cast<const Tensor*>(&dk), static_cast<const Tensor*>(&dv)})
    require(t->dtype() == q.dtype() && (t->dtype() == kF32 || t->dtype() == kBF16), "attention_backward",
            "expected every operand f32 or every one bf16, got {} beside {}", dtype_name(t->dtype()),
            dtype_name(q.dtype()));
  for (Tensor* t : {&dq, &dk, &dv}) std::memset(t->raw(), 0, static_cast<size_t>(t->bytes()));
  const std::vector<Segment> all = read_segments(segments);
  if (dbias && !accumulate_dbias) std::memset(dbias.raw(), 0, static_cast<size_t>(dbias.bytes()));
  if (all.empty()) return;
  DistanceBias by_distance = DistanceBias::over(all, bias, args);
  float* bias_sums = nullptr;
  const auto segment_count = static_cast<int64_t>(all.size());
  if (bias) {
    const int64_t table = args.heads * by_distance.width();
    auto* room = reinterpret_cast<float*>(stream.scratch(
        Stream::kPartialSlot,
        static_cast<size_t>(table + segment_count * args.heads * by_distance.buckets) * sizeof(float)));
    by_distance.fill(bias, args.heads, room);
    if (dbias) bias_sums = room + table;
  }
  std::vector<int64_t> offsets;
  int64_t keys = 0;
  for (const Segment& s : all) {
    offsets.push_back(keys);
    keys += s.k_count;
  }
  const auto sums = static_cast<size_t>(keys * args.heads * args.head_width) * sizeof(float);
  AttentionBackward f{dout.raw(),
                      q.raw(),
                      k.raw(),
                      v.raw(),
                      out.raw(),
                      lse.data<float>(),
                      dq.raw(),
                      dk.raw(),
                      dv.raw(),
                      q.dtype(),
                      attention_step(args),
                      args,
                      reinterpret_cast<float*>(stream.scratch(Stream::kKernelSlot, sums)),
                      reinterpret_cast<float*>(stream.scratch(Stream::kKernelSlot2, sums)),
                      all.data(),
                      offsets.data(),
                      &by_distance,
                      bias_sums};
  const auto run = [&](const std::vector<AttentionItem>& items, auto function) {
    parallel_for(static_cast<int64_t>(items.size()), 1,
                 [&](int64_t i, int64_t) { function(f, items[static_cast<size_t>(i)]); });
  };
  // A head of a segment is one piece of work, the largest segments first.
  const auto whole = [](const Segment&) { return int64_t{1}; };
  std::vector<AttentionItem> heads = attention_items(all, args.heads, 1, whole);
  std::stable_sort(heads.begin(), heads.end(), [&](const AttentionItem& x, const AttentionItem& y) {
    const auto work = [&](const AttentionItem& i) {
      return all[static_cast<size_t>(i.segment)].q_count * all[static_cast<size_t>(i.segment)].k_count;
    };
    return work(x) > work(y);
  });
  run(heads, HWY_DYNAMIC_DISPATCH(backward_item));
  run(attention_items(all, args.kv_heads, 64, [](const Segment& s) { return s.k_count; }),
      HWY_DYNAMIC_DISPATCH(add_item));
  if (bias_sums == nullptr) return;
  float* to = dbias.data<float>();
  for (int64_t b = 0; b < by_distance.buckets; ++b)
    for (int64_t h = 0; h < args.heads; ++h)
      for (int64_t s = 0; s < segment_count; ++s)
        to[b * args.heads + h] += bias_sums[(s * args.heads + h) * by_distance.buckets + b];
}

}  // namespace nibble::backend::cpu
#endif  // HWY_ONCE
