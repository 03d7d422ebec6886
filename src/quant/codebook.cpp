// Blockwise 4-bit encoding and decoding, the same for every code book. Source: bitsandbytes 0.50.2, the
// "default" backend that its CPU uses for encoding, down to its treatment of all-zero, NaN-bearing and short
// last blocks.
#include "quant/codebook.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "quant/parts.h"

namespace nibble::quant {
namespace {

// bitsandbytes clamps scales to this before dividing by them.
constexpr float kLeastAbsmax = 1e-38f;

uint8_t encode_value(const Codebook4& book, float x) {
  if (std::isnan(x)) return book.order[15];
  size_t below = 0;
  while (below < 15 && book.thresholds[below] < x) ++below;
  return book.order[below];
}

}  // namespace

float largest_magnitude(std::span<const float> values) {
  float largest = 0;
  for (const float v : values) {
    if (std::isnan(v)) return std::numeric_limits<float>::quiet_NaN();
    largest = std::max(largest, std::abs(v));
  }
  return largest;
}

void encode_codebook(std::span<const float> values, Weight& w) {
  const Codebook4& book = *w.format->codebook;
  const auto n = static_cast<int64_t>(values.size());
  auto* codes = w.codes.data<uint8_t>();
  auto* absmax = w.absmax.data<float>();
  for (int64_t begin = 0, b = 0; begin < n; begin += w.block, ++b) {
    const int64_t count = std::min(w.block, n - begin);
    const auto block = values.subspan(static_cast<size_t>(begin), static_cast<size_t>(count));
    const float largest = largest_magnitude(block);
    const float clamped = largest < kLeastAbsmax ? kLeastAbsmax : largest;
    // A full block is multiplied by the reciprocal and keeps its absmax; a short one is divided and keeps the
    // clamped.
    const bool full = count == w.block;
    absmax[b] = full ? largest : clamped;
    const float reciprocal = 1.0f / clamped;
    const auto code = [&](int64_t i) -> unsigned {
      if (i >= count) return book.zero_code;
      const float v = block[static_cast<size_t>(i)];
      return encode_value(book, full ? v * reciprocal : v / clamped);
    };
    for (int64_t i = 0; i < count; i += 2)
      codes[(begin + i) / 2] = static_cast<uint8_t>(code(i) << 4 | code(i + 1));
  }
}

void decode_codebook(const Weight& w, int64_t begin, int64_t end, float* out) {
  const Codebook4& book = *w.format->codebook;
  const auto* codes = w.codes.data<uint8_t>();
  for (int64_t i = begin; i < end;) {
    const int64_t b = i / w.block, stop = std::min(end, (b + 1) * w.block);
    const float absmax = block_absmax(w, b);
    for (; i < stop; ++i) {
      const unsigned code = i % 2 == 0 ? codes[i / 2] >> 4 : codes[i / 2] & 15u;
      *out++ = book.values[code] * absmax;
    }
  }
}

}  // namespace nibble::quant
