// The code books of the formats of 2 to 4 bits, one file each, and how thresholds follow from values.
#pragma once
#include <limits>
#include <utility>

#include "quant/format.h"

namespace nibble::quant {

extern const Codebook4 kNf4, kFp4, kE2m1, kE3m0, kInt4, kAf4, kNf3, kNf2;

// What the value zero encodes to when two codes mean zero.
enum class Zeros : uint8_t {
  kBitsandbytes,  // a threshold at 0 between them, so that tiny positive values take the later code
  kFirst,         // the lower code alone is ever made
};

// Codes sorted by value (stable: equal values in order of code), thresholds midway between neighbours, all in
// f32.
constexpr Codebook4 make_codebook(const std::array<float, 16>& values, Zeros zeros = Zeros::kFirst) {
  Codebook4 book{};
  book.values = values;
  for (uint8_t i = 0; i < 16; ++i) {
    int at = i;
    for (; at > 0 && values[book.order[at - 1]] > values[i]; --at) book.order[at] = book.order[at - 1];
    book.order[at] = i;
  }
  for (int i = 0; i < 15; ++i) book.thresholds[i] = (values[book.order[i]] + values[book.order[i + 1]]) / 2;
  for (int i = 1; i < 15; ++i) {
    if (zeros == Zeros::kFirst && values[book.order[i]] == values[book.order[i + 1]]) {
      std::swap(book.order[i], book.order[i + 1]);  // the later code becomes the empty interval between two
      book.thresholds[i] = book.thresholds[i - 1];  // equal thresholds
    }
  }
  int below = 0;
  for (const float t : book.thresholds) below += t < 0 ? 1 : 0;
  book.zero_code = book.order[below];
  return book;
}

// N ascending levels (4 or 8), code i the i-th. The thresholds of levels that are not there are never passed;
// NaN takes the last level.
template <size_t N>
constexpr Codebook4 make_low_codebook(const std::array<float, N>& levels) {
  Codebook4 book{};
  for (size_t i = 0; i < 16; ++i) {
    book.values[i] = i < N ? levels[i] : 0;
    book.order[i] = static_cast<uint8_t>(i < N ? i : N - 1);
  }
  for (size_t i = 0; i < 15; ++i)
    book.thresholds[i] = i + 1 < N ? (levels[i] + levels[i + 1]) / 2 : std::numeric_limits<float>::infinity();
  for (size_t i = 0; i < N; ++i)
    if (levels[i] == 0) book.zero_code = static_cast<uint8_t>(i);
  return book;
}

}  // namespace nibble::quant
