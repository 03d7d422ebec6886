#include "nn/sequence.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace nibble::nn {
namespace {

Tensor host_i32(Allocator& allocator, const Shape& shape, const std::vector<int32_t>& values,
                std::string_view name) {
  Tensor t = Tensor::empty(allocator, shape, kI32, name);
  if (t.raw() != nullptr && !values.empty())
    std::memcpy(t.raw(), values.data(), values.size() * sizeof(int32_t));
  return t;
}

}  // namespace

SequenceInput packed_input(Allocator& allocator, const std::vector<int32_t>& ids,
                           const std::vector<int32_t>& lengths, const std::vector<int32_t>& types) {
  int64_t total = 0;
  for (const int32_t n : lengths) {
    require(n > 0, "packed_input", "a sequence has {} tokens", n);
    total += n;
  }
  const auto tokens = static_cast<int64_t>(ids.size());
  require(total == tokens, "packed_input", "the lengths add up to {} but there are {} tokens", total, tokens);
  require(types.empty() || types.size() == ids.size(), "packed_input", "{} types of {} tokens", types.size(),
          tokens);
  std::vector<int32_t> positions(ids.size()), segments;
  int32_t begin = 0;
  for (const int32_t n : lengths) {
    std::iota(positions.begin() + begin, positions.begin() + begin + n, 0);
    segments.insert(segments.end(), {begin, n, begin, n});
    begin += n;
  }
  return {host_i32(allocator, {tokens}, ids, "input.ids"),
          host_i32(allocator, {tokens}, positions, "input.positions"),
          host_i32(allocator, {static_cast<int64_t>(lengths.size()), 4}, segments, "input.segments"),
          types.empty() ? Tensor() : host_i32(allocator, {tokens}, types, "input.types")};
}

void add_sources(Allocator& allocator, SequenceInput& input, const std::vector<int32_t>& lengths,
                 const std::vector<int32_t>& source_ids, const std::vector<int32_t>& source_lengths) {
  require(lengths.size() == source_lengths.size(), "packed_input", "{} sources for {} sequences",
          source_lengths.size(), lengths.size());
  const SequenceInput source = packed_input(allocator, source_ids, source_lengths);
  std::vector<int32_t> cross;
  int32_t begin = 0, source_begin = 0;
  for (size_t i = 0; i < lengths.size(); ++i) {
    cross.insert(cross.end(), {begin, lengths[i], source_begin, source_lengths[i]});
    begin += lengths[i];
    source_begin += source_lengths[i];
  }
  input.source_ids = source.ids;
  input.source_segments = source.segments;
  input.cross_segments =
      host_i32(allocator, {static_cast<int64_t>(lengths.size()), 4}, cross, "input.cross_segments");
}

KvCache::KvCache(Allocator& allocator, int64_t layers, int64_t slots_, int64_t capacity_, int64_t kv_width,
                 DType dtype, int64_t source_capacity_)
    : length(static_cast<size_t>(slots_), 0),
      source_length(static_cast<size_t>(slots_), 0),
      slots(slots_),
      capacity(capacity_),
      source_capacity(source_capacity_) {
  require(slots_ > 0 && capacity_ > 0 && slots_ * std::max(capacity_, source_capacity_) < INT32_MAX,
          "kv_cache", "{} sequences of {} tokens do not fit", slots_, std::max(capacity_, source_capacity_));
  const MemoryGroup group(allocator, "kv_cache");
  // One block of memory for each kind, which can lie on huge pages.
  const auto make = [&](int64_t rows, const char* name, std::vector<Tensor>& keys,
                        std::vector<Tensor>& values) {
    const Tensor all = Tensor::empty(allocator, {2 * layers * rows, kv_width}, dtype, name);
    for (int64_t l = 0; l < layers; ++l) {
      keys.push_back(all.rows(2 * l * rows, (2 * l + 1) * rows));
      values.push_back(all.rows((2 * l + 1) * rows, (2 * l + 2) * rows));
    }
  };
  make(slots * capacity, "cache.kv", k, v);
  if (source_capacity > 0) make(slots * source_capacity, "cache.source_kv", source_k, source_v);
}

namespace {

// What the encoder reads of `sources`, and the pairs of the decoder's segments with every slot's source.
void read_sources(Allocator& allocator, KvCache& cache, const std::vector<int32_t>& slots,
                  const std::vector<int32_t>& segments, const std::vector<std::vector<int32_t>>& sources,
                  SequenceInput& input) {
  std::vector<int32_t> all, lengths, rows, cross;
  for (size_t i = 0; i < slots.size(); ++i) {
    const int32_t first = static_cast<int32_t>(slots[i] * cache.source_capacity);
    int32_t& held = cache.source_length[static_cast<size_t>(slots[i])];
    if (i < sources.size() && !sources[i].empty()) {
      held = static_cast<int32_t>(sources[i].size());
      require(held <= cache.source_capacity, "kv_cache",
              "a source of {} tokens does not fit a capacity of {}", held, cache.source_capacity);
      lengths.push_back(held);
      all.insert(all.end(), sources[i].begin(), sources[i].end());
      for (int32_t t = 0; t < held; ++t) rows.push_back(first + t);
    }
    require(held > 0, "kv_cache", "slot {} has no source for the encoder to read", slots[i]);
    cross.insert(cross.end(), {segments[4 * i], segments[4 * i + 1], first, held});
  }
  input.cross_segments =
      host_i32(allocator, {static_cast<int64_t>(slots.size()), 4}, cross, "input.cross_segments");
  if (all.empty()) return;
  const SequenceInput source = packed_input(allocator, all, lengths);
  input.source_ids = source.ids;
  input.source_segments = source.segments;
  cache.source_rows = host_i32(allocator, {static_cast<int64_t>(rows.size())}, rows, "cache.source_rows");
}

}  // namespace

SequenceInput cached_input(Allocator& allocator, KvCache& cache, const std::vector<int32_t>& slots,
                           const std::vector<std::vector<int32_t>>& ids,
                           const std::vector<std::vector<int32_t>>& sources) {
  require(slots.size() == ids.size(), "kv_cache", "{} slots for {} sequences", slots.size(), ids.size());
  std::vector<int32_t> all, positions, segments, rows;
  for (size_t i = 0; i < slots.size(); ++i) {
    const int32_t slot = slots[i], n = static_cast<int32_t>(ids[i].size());
    require(slot >= 0 && slot < cache.slots, "kv_cache", "slot {} of {}", slot, cache.slots);
    const int32_t held = cache.length[static_cast<size_t>(slot)],
                  first = static_cast<int32_t>(slot * cache.capacity);
    require(held + int64_t{n} <= cache.capacity, "kv_cache",
            "{} more tokens after {} do not fit a capacity of {}", n, held, cache.capacity);
    segments.insert(segments.end(), {static_cast<int32_t>(all.size()), n, first, held + n});
    for (int32_t t = 0; t < n; ++t) {
      positions.push_back(held + t);
      rows.push_back(first + held + t);
    }
    all.insert(all.end(), ids[i].begin(), ids[i].end());
  }
  const auto tokens = static_cast<int64_t>(all.size());
  cache.target_rows = host_i32(allocator, {tokens}, rows, "cache.target_rows");
  SequenceInput input{
      host_i32(allocator, {tokens}, all, "input.ids"),
      host_i32(allocator, {tokens}, positions, "input.positions"),
      host_i32(allocator, {static_cast<int64_t>(slots.size()), 4}, segments, "input.segments")};
  if (cache.source_capacity > 0) read_sources(allocator, cache, slots, segments, sources, input);
  return input;
}

void commit(KvCache& cache, const std::vector<int32_t>& slots, const std::vector<std::vector<int32_t>>& ids) {
  for (size_t i = 0; i < slots.size(); ++i)
    cache.length[static_cast<size_t>(slots[i])] += static_cast<int32_t>(ids[i].size());
}

}  // namespace nibble::nn
