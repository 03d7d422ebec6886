// What a model reads: a packed stream of tokens and how it is cut into sequences.
#pragma once
#include <cstdint>
#include <vector>

#include "tensor/tensor.h"

namespace nibble::nn {

// One stream of T tokens. ids and positions I32 [T]; segments I32 [n, 4] as backend/kernels/attention.h reads
// them. types I32 [T], which text of a pair each token is of (BERT); undefined: all of the first.
// For an encoder–decoder this is what the decoder reads, and beside it stands what the encoder reads: one
// stream of S tokens, source_ids I32 [S], source_segments; cross_segments pair the decoder's tokens with it.
struct SequenceInput {
  Tensor ids, positions, segments, types = {};
  Tensor source_ids = {}, source_segments = {}, cross_segments = {};
  int64_t tokens() const { return ids.size(0); }
};

// Builds it from lengths of sequences laid one after another (positions 0, 1, 2 … in each); types may be
// empty. On the meta device only shapes are made.
SequenceInput packed_input(Allocator& allocator, const std::vector<int32_t>& ids,
                           const std::vector<int32_t>& lengths, const std::vector<int32_t>& types = {});

// Puts sources beside it, one of source_lengths for each sequence of `input`.
void add_sources(Allocator& allocator, SequenceInput& input, const std::vector<int32_t>& lengths,
                 const std::vector<int32_t>& source_ids, const std::vector<int32_t>& source_lengths);

// Keys and values of sequences that are being generated: `slots` sequences of up to `capacity` tokens each.
// Layout per layer: k, v [slots · capacity, G · K]; sequence s holds its first length[s] rows from s ·
// capacity on. Of an encoder–decoder also those of what the encoder read, up to source_capacity tokens each,
// laid out alike.
struct KvCache {
  KvCache(Allocator& allocator, int64_t layers, int64_t slots, int64_t capacity, int64_t kv_width,
          DType dtype, int64_t source_capacity = 0);
  std::vector<Tensor> k, v;
  std::vector<Tensor> source_k, source_v;
  std::vector<int32_t> length, source_length;  // tokens held by each slot
  int64_t slots, capacity, source_capacity;
  // For the forward in progress: row of the cache that each token of the stream goes to, I32 [T], and each
  // token of the encoder's, I32 [S].
  Tensor target_rows, source_rows;
};

// Input that appends `ids[i]` (any number of tokens each) to slot `slots[i]`: positions go on from its
// length, segments pair new queries with all keys of the slot. sources[i], where it is not empty, is what the
// encoder reads anew for that slot; otherwise the slot keeps its source. Call commit() after the forward.
// Errors: a slot would overflow; a slot without a source in a cache for sources.
SequenceInput cached_input(Allocator& allocator, KvCache& cache, const std::vector<int32_t>& slots,
                           const std::vector<std::vector<int32_t>>& ids,
                           const std::vector<std::vector<int32_t>>& sources = {});
void commit(KvCache& cache, const std::vector<int32_t>& slots, const std::vector<std::vector<int32_t>>& ids);

}  // namespace nibble::nn
