// Scaled dot-product attention over segments of a packed stream, tiled so that no score matrix is ever whole
// (Dao et al. 2022), with grouped query heads.
//
// q [Tq, H · K], k and v [Tk, G · K], out [Tq, H · K]: F32 or BF16, softmax and sums in f32. H is a multiple
// of G: query head h reads key head h / (H / G). lse F32 [Tq, H] (log-sum-exp of the scaled scores; what
// backward needs). Segments: I32 [n, 4] rows {q_begin, q_count, k_begin, k_count}; queries of a segment see
// keys of that segment only. Causal: query i of a segment sees its keys 0 … k_count - q_count + i. window >
// 0: only the last `window` of those. softcap > 0: each scaled score s becomes softcap · tanh(s / softcap)
// (Gemma 2) alibi: then slope_h · (key - query) is added, both as positions in the segment's keys; slope_h =
// 2^(-8 (h + 1) / H), and for H that is no power of two those of the next lower one, then every other slope
// of the next higher        (Press et al. 2022) bias F32 [buckets, H], may be undefined: bias[bucket of (key
// - query), h] is added last, both as positions in the segment's keys, of which there are as many as queries
// or more then. The buckets are those of T5 (Raffel et al. 2020): half of them for a distance each, the
// others ever wider up to `bias_distance`, beyond which all share the last; without `causal` half of all are
// for keys behind the query. Query rows in no segment give zero. Cost is that of the segments' own sizes.
// Numeric class: rounding; the same bytes for any number of threads (work is divided by (segment, head,
// tile)).
#pragma once
#include "backend/kernel_slot.h"

namespace nibble::backend {

struct AttentionArgs {
  int64_t heads = 1, kv_heads = 1, head_width = 64;
  float scale = 1;  // usually 1 / sqrt(head_width)
  bool causal = true;
  int64_t window = 0;  // 0: no sliding window
  float softcap = 0;   // 0: none
  bool alibi = false;
  int64_t bias_distance = 128;  // with a bias
};

inline KernelSlot<void(Stream&, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& bias,
                       const Tensor& segments, AttentionArgs args, Tensor& out, Tensor& lse)>
    attention{"attention"};

// Scores are made again from q, k and lse. dq, dk, dv are written (not accumulated); rows in no segment
// become zero. dbias F32, may be undefined; each head's sum over a segment is its own, and they are added in
// order.
inline KernelSlot<void(Stream&, const Tensor& dout, const Tensor& q, const Tensor& k, const Tensor& v,
                       const Tensor& bias, const Tensor& out, const Tensor& lse, const Tensor& segments,
                       AttentionArgs args, Tensor& dq, Tensor& dk, Tensor& dv, Tensor& dbias,
                       bool accumulate_dbias)>
    attention_backward{"attention_backward"};

}  // namespace nibble::backend
