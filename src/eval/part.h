// A part of a data set to measure on.
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

namespace nibble::eval {

// Keeps one item in `every`, from the first, and of those at most `limit` (0: all). Sets often go task by
// task or by their source: so a small part meets all of it.
template <class T>
void keep_part(std::vector<T>& items, int64_t every, int64_t limit) {
  const auto step = static_cast<size_t>(every);
  for (size_t i = step; i < items.size(); i += step) std::swap(items[i / step], items[i]);
  items.resize((items.size() + step - 1) / step);
  if (limit > 0 && static_cast<int64_t>(items.size()) > limit) items.resize(static_cast<size_t>(limit));
}

}  // namespace nibble::eval
