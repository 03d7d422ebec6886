// Blockwise encoding and decoding by code book. Source: bitsandbytes 0.50.2, the
// "default" backend that its CPU uses for encoding, down to its treatment of all-zero, NaN-bearing and short
// last blocks.
#include "quant/codebook.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

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

unsigned code_at(const uint8_t* codes, int bits, int64_t i) {
  if (bits == 4) return i % 2 == 0 ? codes[i / 2] >> 4 : codes[i / 2] & 15u;
  const int64_t first = i * bits / 8, within = i * bits % 8;
  unsigned word = codes[first];
  if (within + bits > 8) word |= unsigned{codes[first + 1]} << 8;
  return word >> within & ((1u << bits) - 1);
}

}  // namespace

void pack_codes(const uint8_t* codes, int64_t n, int bits, uint8_t* out) {
  if (bits == 4) {
    for (int64_t i = 0; i < n; i += 2) out[i / 2] = static_cast<uint8_t>(codes[i] << 4 | codes[i + 1]);
    return;
  }
  for (int64_t i = 0; i < n; i += 8) {  // 8 codes fill `bits` bytes
    uint32_t word = 0;
    for (int64_t j = 0; j < 8 && i + j < n; ++j) word |= uint32_t{codes[i + j]} << (j * bits);
    const int64_t count = std::min<int64_t>(bits, (n * bits + 7) / 8 - i * bits / 8);
    for (int64_t b = 0; b < count; ++b) *out++ = static_cast<uint8_t>(word >> (8 * b));
  }
}

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
  const auto bits = static_cast<int>(w.format->bits);
  auto* codes = w.codes.data<uint8_t>();
  auto* absmax = w.absmax.data<float>();
  std::vector<uint8_t> scratch(static_cast<size_t>(w.block) + 1);
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
    for (size_t i = 0; i < block.size(); ++i)
      scratch[i] = encode_value(book, full ? block[i] * reciprocal : block[i] / clamped);
    scratch[block.size()] = book.zero_code;
    pack_codes(scratch.data(), count, bits, codes + begin * bits / 8);
  }
}

void decode_codebook(const Weight& w, int64_t begin, int64_t end, float* out) {
  const Codebook4& book = *w.format->codebook;
  const auto bits = static_cast<int>(w.format->bits);
  const auto* codes = w.codes.data<uint8_t>();
  for (int64_t i = begin; i < end;) {
    const int64_t b = i / w.block, stop = std::min(end, (b + 1) * w.block);
    const float absmax = block_absmax(w, b);
    for (; i < stop; ++i) *out++ = book.values[code_at(codes, bits, i)] * absmax;
  }
}

}  // namespace nibble::quant
