// A hash table from 64-bit keys to 32-bit pairs: open addressing, built once and then only read. Used for BPE
// merges (left id, right id) -> (rank, merged id) and for the edges of tries (node, byte) -> child.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace nibble::text {

template <class Value>
class FlatMap {
 public:
  void reserve(size_t count) {
    if (count * 2 > slots_.size()) grow(std::bit_ceil(count * 2 + 16));
  }
  // Returns the value of the key; `fresh` tells whether it was inserted (then it is `value`).
  Value& insert(uint64_t key, const Value& value, bool& fresh) {
    if ((count_ + 1) * 2 > slots_.size()) grow(std::bit_ceil((count_ + 8) * 4));
    Slot& slot = slots_[locate(key)];
    fresh = slot.key == kEmpty;
    if (fresh) {
      slot = {key, value};
      ++count_;
    }
    return slot.value;
  }
  const Value* find(uint64_t key) const {
    if (slots_.empty()) return nullptr;
    const Slot& slot = slots_[locate(key)];
    return slot.key == kEmpty ? nullptr : &slot.value;
  }
  size_t size() const { return count_; }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};  // no id pair and no edge has this key
  struct Slot {
    uint64_t key = kEmpty;
    Value value{};
  };

  size_t locate(uint64_t key) const {
    size_t i = (key * 0x9E3779B97F4A7C15ull) >> shift_;
    while (slots_[i].key != key && slots_[i].key != kEmpty) i = (i + 1) & (slots_.size() - 1);
    return i;
  }
  void grow(size_t size) {
    std::vector<Slot> old(size);
    old.swap(slots_);
    shift_ = 64 - std::countr_zero(slots_.size());
    for (const Slot& slot : old)
      if (slot.key != kEmpty) slots_[locate(slot.key)] = slot;
  }

  std::vector<Slot> slots_;
  size_t count_ = 0;
  int shift_ = 63;
};

}  // namespace nibble::text
