// GGUF "k-quants": super-blocks of 256 values whose sub-blocks have small integer scales under one f16 scale.
// Source: the layouts in ggml-common.h; values equal those of the `gguf` Python package bit for bit.
#include "quant/parts.h"

namespace nibble::quant {
namespace {

float half_at(const std::byte* p) { return to_float(Float16{load_at<uint16_t>(p, 0)}); }
unsigned byte_at(const std::byte* p, int i) { return std::to_integer<unsigned>(p[i]); }

// Q4_K and Q5_K: 8 scales and 8 minima of 6 bits in 12 bytes. The first four of each lie in the low bits of
// bytes 0-3 and 4-7; of the last four, the low four bits share bytes 8-11 and the high two bits top bytes 0-3
// and 4-7.
struct ScaleMin {
  float scale, min;
};
ScaleMin scale_min(const std::byte* s, int i) {
  if (i < 4) return {static_cast<float>(byte_at(s, i) & 63), static_cast<float>(byte_at(s, i + 4) & 63)};
  const unsigned low = byte_at(s, i + 4);
  return {static_cast<float>((low & 15) | (byte_at(s, i - 4) >> 6) << 4),
          static_cast<float>((low >> 4) | (byte_at(s, i) >> 6) << 4)};
}

}  // namespace

// scales[16] (4-bit scale, 4-bit minimum), qs[64], d, dmin. Bits 2k of bytes 32h … 32h + 31 are values 128h +
// 32k ….
void decode_q2_k(const std::byte* block, float* out) {
  const std::byte* qs = block + 16;
  const float d = half_at(block + 80), dmin = half_at(block + 82);
  for (int sub = 0; sub < 16; ++sub) {
    const unsigned s = byte_at(block, sub);
    const float scale = d * static_cast<float>(s & 15), min = dmin * static_cast<float>(s >> 4);
    const int shift = 2 * (sub % 8 / 2), from = sub / 8 * 32 + sub % 2 * 16;
    for (int i = 0; i < 16; ++i)
      out[16 * sub + i] = scale * static_cast<float>(byte_at(qs, from + i) >> shift & 3) - min;
  }
}

// hmask[32], qs[64], scales[12] (16 of 6 bits, offset 32), d. A clear bit of hmask subtracts 4.
void decode_q3_k(const std::byte* block, float* out) {
  const std::byte *hmask = block, *qs = block + 32, *s = block + 96;
  const float d = half_at(block + 108);
  for (int sub = 0; sub < 16; ++sub) {
    const unsigned low = byte_at(s, sub % 8) >> (sub < 8 ? 0 : 4) & 15;
    const unsigned high = byte_at(s, 8 + sub % 4) >> (2 * (sub / 4)) & 3;
    const float scale = d * static_cast<float>(static_cast<int>(low | high << 4) - 32);
    const int shift = 2 * (sub % 8 / 2), from = sub / 8 * 32 + sub % 2 * 16, bit = sub / 2;
    for (int i = 0; i < 16; ++i) {
      const auto q = static_cast<int>(byte_at(qs, from + i) >> shift & 3);
      const int less = (byte_at(hmask, sub % 2 * 16 + i) >> bit & 1) != 0 ? 0 : 4;
      out[16 * sub + i] = scale * static_cast<float>(q - less);
    }
  }
}

// d, dmin, scales[12], qs[128]: the low nibbles of 32 bytes, then their high ones, are two sub-blocks of 32.
void decode_q4_k(const std::byte* block, float* out) {
  const float d = half_at(block), dmin = half_at(block + 2);
  for (int sub = 0; sub < 8; ++sub) {
    const ScaleMin s = scale_min(block + 4, sub);
    const float scale = d * s.scale, min = dmin * s.min;
    const std::byte* qs = block + 16 + sub / 2 * 32;
    const int shift = sub % 2 * 4;
    for (int i = 0; i < 32; ++i)
      out[32 * sub + i] = scale * static_cast<float>(byte_at(qs, i) >> shift & 15) - min;
  }
}

// d, dmin, scales[12], qh[32], qs[128]: as Q4_K, with bit `sub` of qh[i] as the fifth bit.
void decode_q5_k(const std::byte* block, float* out) {
  const float d = half_at(block), dmin = half_at(block + 2);
  for (int sub = 0; sub < 8; ++sub) {
    const ScaleMin s = scale_min(block + 4, sub);
    const float scale = d * s.scale, min = dmin * s.min;
    const std::byte *qh = block + 16, *qs = block + 48 + sub / 2 * 32;
    const int shift = sub % 2 * 4;
    for (int i = 0; i < 32; ++i) {
      const unsigned q = (byte_at(qs, i) >> shift & 15) | (byte_at(qh, i) >> sub & 1) << 4;
      out[32 * sub + i] = scale * static_cast<float>(q) - min;
    }
  }
}

// ql[128], qh[64], scales[16] (signed), d: six bits, offset 32. Halves of 128 values: 64 bytes of ql, 32 of
// qh.
void decode_q6_k(const std::byte* block, float* out) {
  const std::byte* scales = block + 192;
  const float d = half_at(block + 208);
  for (int sub = 0; sub < 16; ++sub) {
    const float scale = d * static_cast<float>(load_at<int8_t>(scales, sub));
    const int half = sub / 8, quarter = sub % 8 / 2, within = sub % 2 * 16;
    const std::byte* ql = block + half * 64 + quarter % 2 * 32 + within;
    const std::byte* qh = block + 128 + half * 32 + within;
    for (int i = 0; i < 16; ++i) {
      const unsigned q = (byte_at(ql, i) >> (quarter / 2 * 4) & 15) | (byte_at(qh, i) >> (2 * quarter) & 3)
                                                                          << 4;
      out[16 * sub + i] = scale * static_cast<float>(static_cast<int>(q) - 32);
    }
  }
}

}  // namespace nibble::quant
