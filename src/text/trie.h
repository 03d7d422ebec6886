// A byte trie: which of many strings start at a place in a text. Built once and then only read.
#pragma once
#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "text/flat_map.h"

namespace nibble::text {

class Trie {
 public:
  Trie() { roots_.fill(-1); }

  // The first value given to a key stays.
  void insert(std::string_view key, int32_t value) {
    int32_t node = -1;
    for (const char c : key) {
      const auto byte = static_cast<unsigned char>(c);
      if (node < 0) {
        if (roots_[byte] < 0) roots_[byte] = add_node();
        node = roots_[byte];
      } else {
        bool fresh = false;
        int32_t& child = edges_.insert(edge(node, byte), 0, fresh);
        if (fresh) child = add_node();
        node = child;
      }
    }
    if (node >= 0 && values_[static_cast<size_t>(node)] < 0) values_[static_cast<size_t>(node)] = value;
  }
  bool empty() const { return values_.empty(); }
  bool may_start(char c) const { return roots_[static_cast<unsigned char>(c)] >= 0; }

  // Calls found(length, value) for every key that is a prefix of `text`, shortest first.
  template <class Found>
  void prefixes(std::string_view text, Found&& found) const {
    if (text.empty()) return;
    int32_t node = roots_[static_cast<unsigned char>(text[0])];
    for (size_t length = 1; node >= 0; ++length) {
      if (const int32_t value = values_[static_cast<size_t>(node)]; value >= 0) found(length, value);
      if (length == text.size()) return;
      const int32_t* child = edges_.find(edge(node, static_cast<unsigned char>(text[length])));
      node = child == nullptr ? -1 : *child;
    }
  }
  // Length of the longest key that `text` starts with (0 when there is none) and its value.
  size_t longest(std::string_view text, int32_t& value) const {
    size_t best = 0;
    prefixes(text, [&](size_t length, int32_t v) {
      best = length;
      value = v;
    });
    return best;
  }

 private:
  static uint64_t edge(int32_t node, unsigned char byte) { return (static_cast<uint64_t>(node) << 8) | byte; }
  int32_t add_node() {
    values_.push_back(-1);
    return static_cast<int32_t>(values_.size()) - 1;
  }

  std::array<int32_t, 256> roots_;
  FlatMap<int32_t> edges_;
  std::vector<int32_t> values_;
};

}  // namespace nibble::text
