// Self-attention with rotary positions and grouped heads, over a packed stream or a cache of keys and values.
#pragma once
#include "nn/linear.h"
#include "nn/sequence.h"

namespace nibble::nn {

struct SelfAttention {
  Linear q, k, v, o;
  backend::AttentionArgs args;

  // x [T, D] -> [T, D]. With a cache, this layer's keys and values are put into it first and attention reads
  // it.
  Variable operator()(Context& cx, const Variable& x, const Tensor& cos_sin, const SequenceInput& input,
                      KvCache* cache, int64_t layer) const;
};

}  // namespace nibble::nn
