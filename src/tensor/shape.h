// Sizes of up to four dimensions, slowest first. Letters used everywhere: T tokens of a packed stream, D
// model width, H query heads, G key/value heads, K head width, F feed-forward width, V vocabulary, L layers,
// R rank.
#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "base/error.h"

namespace nibble {

class Shape {
 public:
  static constexpr int kMaxRank = 4;
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) {
    require(dims.size() <= kMaxRank, "shape", "at most {} dimensions, got {}", kMaxRank, dims.size());
    for (int64_t d : dims) push_back(d);
  }
  void push_back(int64_t d) {
    require(rank_ < kMaxRank && d >= 0, "shape", "cannot add dimension {} of size {}", rank_, d);
    dims_[static_cast<size_t>(rank_++)] = d;
  }
  int rank() const { return rank_; }
  int64_t operator[](int i) const { return dims_[static_cast<size_t>(i < 0 ? i + rank_ : i)]; }
  int64_t numel() const {
    int64_t n = 1;
    for (int i = 0; i < rank_; ++i) n *= dims_[static_cast<size_t>(i)];
    return n;
  }
  int64_t last() const { return rank_ == 0 ? 1 : dims_[static_cast<size_t>(rank_ - 1)]; }
  // Rows of the matrix that has the last dimension as columns.
  int64_t rows() const { return last() == 0 ? 0 : numel() / last(); }
  bool operator==(const Shape& o) const = default;
  // "[2048, 576]"
  std::string str() const {
    std::string s = "[";
    for (int i = 0; i < rank_; ++i) s += (i ? ", " : "") + std::to_string(dims_[static_cast<size_t>(i)]);
    return s + "]";
  }

 private:
  std::array<int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

}  // namespace nibble

// So that a check can name a shape without writing it out when all is well.
template <>
struct fmt::formatter<nibble::Shape> {
  constexpr auto parse(fmt::format_parse_context& context) { return context.begin(); }
  template <class Context>
  auto format(const nibble::Shape& shape, Context& context) const {
    const std::string text = shape.str();
    return std::copy(text.begin(), text.end(), context.out());
  }
};
