// What a model reads: a packed stream of tokens and how it is cut into sequences.
#pragma once
#include <cstdint>
#include <vector>

#include "tensor/tensor.h"

namespace nibble::nn {

// One stream of T tokens. ids and positions I32 [T]; segments I32 [n, 4] as backend/kernels/attention.h reads
// them. types I32 [T], which text of a pair each token is of (BERT); undefined: all of the first.
struct SequenceInput {
  Tensor ids, positions, segments, types = {};
  int64_t tokens() const { return ids.size(0); }
};

// Builds it from lengths of sequences laid one after another (positions 0, 1, 2 … in each); types may be
// empty. On the meta device only shapes are made.
SequenceInput packed_input(Allocator& allocator, const std::vector<int32_t>& ids,
                           const std::vector<int32_t>& lengths, const std::vector<int32_t>& types = {});

// Keys and values of sequences that are being generated: `slots` sequences of up to `capacity` tokens each.
// Layout per layer: k, v [slots · capacity, G · K]; sequence s holds its first length[s] rows from s ·
// capacity on.
struct KvCache {
  KvCache(Allocator& allocator, int64_t layers, int64_t slots, int64_t capacity, int64_t kv_width,
          DType dtype);
  std::vector<Tensor> k, v;
  std::vector<int32_t> length;  // tokens held by each slot
  int64_t slots, capacity;
  // For the forward in progress: row of the cache that each token of the stream goes to, I32 [T].
  Tensor target_rows;
};

// Input that appends `ids[i]` (any number of tokens each) to slot `slots[i]`: positions go on from its
// length, segments pair new queries with all keys of the slot. Call commit() after the forward. Errors: a
// slot would overflow.
SequenceInput cached_input(Allocator& allocator, KvCache& cache, const std::vector<int32_t>& slots,
                           const std::vector<std::vector<int32_t>>& ids);
void commit(KvCache& cache, const std::vector<int32_t>& slots, const std::vector<std::vector<int32_t>>& ids);

}  // namespace nibble::nn
