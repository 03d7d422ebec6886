// GGUF blocks of 32 values with one f16 scale (and, for the _1 types, one f16 minimum). Nibbles: value i lies
// in the low half of byte i, value i + 16 in its high half. Source: the layout in ggml-common.h; values equal
// those of the `gguf` Python package bit for bit.
#include "quant/parts.h"

namespace nibble::quant {
namespace {

float half_at(const std::byte* p) { return to_float(Float16{load_at<uint16_t>(p, 0)}); }
unsigned byte_at(const std::byte* p, int i) { return std::to_integer<unsigned>(p[i]); }

}  // namespace

void decode_q4_0(const std::byte* block, float* out) {
  const float d = half_at(block);
  for (int i = 0; i < 16; ++i) {
    const unsigned q = byte_at(block + 2, i);
    out[i] = d * static_cast<float>(static_cast<int>(q & 15) - 8);
    out[i + 16] = d * static_cast<float>(static_cast<int>(q >> 4) - 8);
  }
}

void decode_q4_1(const std::byte* block, float* out) {
  const float d = half_at(block), m = half_at(block + 2);
  for (int i = 0; i < 16; ++i) {
    const unsigned q = byte_at(block + 4, i);
    out[i] = d * static_cast<float>(q & 15) + m;
    out[i + 16] = d * static_cast<float>(q >> 4) + m;
  }
}

// The fifth bit of value i is bit i of a 32-bit word.
void decode_q5_0(const std::byte* block, float* out) {
  const float d = half_at(block);
  const auto high = load_at<uint32_t>(block + 2, 0);
  for (int i = 0; i < 16; ++i) {
    const unsigned q = byte_at(block + 6, i);
    out[i] = d * static_cast<float>(static_cast<int>((q & 15) | (high >> i & 1) << 4) - 16);
    out[i + 16] = d * static_cast<float>(static_cast<int>((q >> 4) | (high >> (i + 16) & 1) << 4) - 16);
  }
}

void decode_q5_1(const std::byte* block, float* out) {
  const float d = half_at(block), m = half_at(block + 2);
  const auto high = load_at<uint32_t>(block + 4, 0);
  for (int i = 0; i < 16; ++i) {
    const unsigned q = byte_at(block + 8, i);
    out[i] = d * static_cast<float>((q & 15) | (high >> i & 1) << 4) + m;
    out[i + 16] = d * static_cast<float>((q >> 4) | (high >> (i + 16) & 1) << 4) + m;
  }
}

void decode_q8_0(const std::byte* block, float* out) {
  const float d = half_at(block);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(load_at<int8_t>(block + 2, i));
}

}  // namespace nibble::quant
