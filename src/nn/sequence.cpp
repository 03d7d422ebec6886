#include "nn/sequence.h"

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

KvCache::KvCache(Allocator& allocator, int64_t layers, int64_t slots_, int64_t capacity_, int64_t kv_width,
                 DType dtype)
    : length(static_cast<size_t>(slots_), 0), slots(slots_), capacity(capacity_) {
  require(slots_ > 0 && capacity_ > 0 && slots_ * capacity_ < INT32_MAX, "kv_cache",
          "{} sequences of {} tokens do not fit", slots_, capacity_);
  const MemoryGroup group(allocator, "kv_cache");
  for (int64_t l = 0; l < layers; ++l) {
    k.push_back(Tensor::empty(allocator, {slots * capacity, kv_width}, dtype, "cache.k"));
    v.push_back(Tensor::empty(allocator, {slots * capacity, kv_width}, dtype, "cache.v"));
  }
}

SequenceInput cached_input(Allocator& allocator, KvCache& cache, const std::vector<int32_t>& slots,
                           const std::vector<std::vector<int32_t>>& ids) {
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
  return {host_i32(allocator, {tokens}, all, "input.ids"),
          host_i32(allocator, {tokens}, positions, "input.positions"),
          host_i32(allocator, {static_cast<int64_t>(slots.size()), 4}, segments, "input.segments")};
}

void commit(KvCache& cache, const std::vector<int32_t>& slots, const std::vector<std::vector<int32_t>>& ids) {
  for (size_t i = 0; i < slots.size(); ++i)
    cache.length[static_cast<size_t>(slots[i])] += static_cast<int32_t>(ids[i].size());
}

}  // namespace nibble::nn
