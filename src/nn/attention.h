// Self-attention over a packed stream or a cache of keys and values: grouped heads, rotary positions or
// others, q, k and v from three products or from one; and a decoder's attention to what its encoder read.
#pragma once
#include "nn/linear.h"
#include "nn/norm.h"
#include "nn/sequence.h"

namespace nibble::nn {

// How q, k and v lie in the result of one product: of each head in turn (GPT-NeoX, BLOOM), or all of q, then
// all of k and of v (GPT-2, Phi-3).
enum class FusedQkv : uint8_t { kNo, kByHead, kInTurn };

struct SelfAttention {
  Linear q, k, v, o;
  Linear qkv;  // instead of q, k and v where `fused` says so
  FusedQkv fused = FusedQkv::kNo;
  Norm q_norm, k_norm;  // of each head, where defined (Qwen3)
  backend::AttentionArgs args;

  // x [T, D] -> [T, D]. With a cache, this layer's keys and values are put into it first and attention reads
  // it. cos_sin undefined: positions come another way. bias: of distances (ops::attention).
  Variable operator()(Context& cx, const Variable& x, const Tensor& cos_sin, const SequenceInput& input,
                      KvCache* cache, int64_t layer, const Variable& bias = {}) const;
};

struct CrossAttention {
  Linear q, k, v, o;
  backend::AttentionArgs args;

  // x [T, D], source [S, E] (undefined where every source is in the cache already) -> [T, D]. With a cache,
  // this layer's keys and values of new sources are put into it first and attention reads it.
  Variable operator()(Context& cx, const Variable& x, const Variable& source, const SequenceInput& input,
                      KvCache* cache, int64_t layer) const;
};

}  // namespace nibble::nn
