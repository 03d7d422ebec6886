// Encoders of GGUF's k-quants, for weights that are frozen in them. The layouts are those of
// ggml_kquants.cpp.
//
// A sub-block of 16 or 32 values is s·q - m (q2_k, q4_k, q5_k) or s·q (q3_k, q6_k) with small integers q. s
// and m are the least-squares fit for given q, and q the nearest integers for given s and m: both steps lower
// the squared error, so they alternate (Lloyd 1982) from several first scales, and the best end counts. A
// block's scales then become integers under one f16 scale each; every integer's neighbours are tried with the
// q they lead to, since rounding s and m apart is not the best of pairs.
#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "quant/parts.h"

namespace nibble::quant {
namespace {

constexpr int kBlock = 256;
constexpr float kFirstScales[] = {0.6f, 0.75f, 0.9f, 1.0f};  // of the one that just reaches the largest value
constexpr int kRounds = 5;

// To the nearest integer, ties to even, for |x| < 2^22.
float nearest(float x) { return (x + 0x1.8p23f) - 0x1.8p23f; }

// 0 for scales too small to divide by: every q is 0 then.
float inverse_of(float scale) { return std::abs(scale) > 1e-30f ? 1 / scale : 0; }

struct Fit {
  float scale = 0, min = 0, error = 0;
};

struct Levels {
  float low, high;  // of q
  float quantize(float x, float inverse) const { return nearest(std::clamp(x * inverse, low, high)); }
};

// Σ (x - (s q - m))² with the best q; also the sums that the least-squares step needs.
struct Sums {
  float error = 0, q = 0, qq = 0, x = 0, xq = 0;
};
template <int N>
Sums sums_of(const float* x, Levels levels, float scale, float min) {
  Sums sums;
  const float inverse = inverse_of(scale);
  for (int i = 0; i < N; ++i) {
    const float q = levels.quantize(x[i] + min, inverse), e = x[i] + min - scale * q;
    sums.error += e * e;
    sums.q += q;
    sums.qq += q * q;
    sums.x += x[i];
    sums.xq += x[i] * q;
  }
  return sums;
}

// s and m >= 0 of least squared error for the q behind these sums.
template <int N>
Fit least_squares(const Sums& s) {
  const float det = N * s.qq - s.q * s.q;
  Fit fit;
  if (det > 0) {
    fit.scale = (N * s.xq - s.q * s.x) / det;
    fit.min = (s.q * s.xq - s.qq * s.x) / det;
  }
  if (det <= 0 || fit.min < 0) fit = {s.qq > 0 ? s.xq / s.qq : 0, 0, 0};
  return fit;
}

template <int N>
Fit fit_affine(const float* x, float top) {
  const auto [least, most] = std::minmax_element(x, x + N);
  const float low = std::min(*least, 0.0f);
  Fit best{0, 0, sums_of<N>(x, {0, top}, 0, 0).error};
  if (*most <= low) return best;
  for (const float share : kFirstScales) {
    Fit fit{(*most - low) / top * share, -low * share, 0};
    for (int round = 0; round < kRounds && fit.scale > 0; ++round) {
      const Sums sums = sums_of<N>(x, {0, top}, fit.scale, fit.min);
      if (sums.error < best.error) best = {fit.scale, fit.min, sums.error};
      fit = least_squares<N>(sums);
    }
  }
  return best;
}

// Signed scale; -n … n - 1 reaches further down, so either sign may be the better one.
template <int N>
Fit fit_symmetric(const float* x, float n) {
  float largest = 0;
  for (int i = 0; i < N; ++i)
    if (std::abs(x[i]) > std::abs(largest)) largest = x[i];
  Fit best{0, 0, sums_of<N>(x, {-n, n - 1}, 0, 0).error};
  if (largest == 0) return best;
  for (const float sign : {-1.0f, 1.0f})
    for (const float share : kFirstScales) {
      float scale = sign * largest / n * share;
      for (int round = 0; round < kRounds && scale != 0; ++round) {
        const Sums sums = sums_of<N>(x, {-n, n - 1}, scale, 0);
        if (sums.error < best.error) best = {scale, 0, sums.error};
        scale = sums.qq > 0 ? sums.xq / sums.qq : 0;
      }
    }
  return best;
}

// A scale as f16 such that the largest of `values`, in magnitude, becomes `top`; 0 when all are 0.
float shared_scale(const float* values, int count, float top, Float16& half) {
  float largest = 0;
  for (int i = 0; i < count; ++i)
    if (std::abs(values[i]) > std::abs(largest)) largest = values[i];
  half = to_f16(std::clamp(largest / top, -65504.0f, 65504.0f));
  return to_float(half);
}

void store(std::byte* at, Float16 half) { std::memcpy(at, &half, 2); }

// The integers of one block.
template <int Subs>
struct Integers {
  std::array<int, Subs> scale{}, min{};
  std::array<uint8_t, kBlock> q{};  // from 0 up: the symmetric ones have their offset added
  Float16 d{}, dmin{};
};

template <int N>
void codes_of(const float* x, Levels levels, float scale, float min, uint8_t* q) {
  const float inverse = inverse_of(scale);
  for (int i = 0; i < N; ++i) q[i] = static_cast<uint8_t>(levels.quantize(x[i] + min, inverse) - levels.low);
}

template <int Subs>
Integers<Subs> encode_affine(const float* x, float top, int scale_top) {
  constexpr int kValues = kBlock / Subs;
  std::array<float, Subs> scales, mins;
  for (int s = 0; s < Subs; ++s) {
    const Fit fit = fit_affine<kValues>(x + s * kValues, top);
    scales[s] = fit.scale;
    mins[s] = fit.min;
  }
  Integers<Subs> out;
  const auto most = static_cast<float>(scale_top);
  const float d = shared_scale(scales.data(), Subs, most, out.d),
              dmin = shared_scale(mins.data(), Subs, most, out.dmin);
  for (int s = 0; s < Subs; ++s) {
    const float* values = x + s * kValues;
    const auto whole = [&](float value, float unit) {
      return unit > 0 ? static_cast<int>(std::clamp(nearest(value / unit), 0.0f, most)) : 0;
    };
    const int scale = whole(scales[s], d), min = whole(mins[s], dmin);
    float best = HUGE_VALF;
    for (int a = std::max(scale - 1, 0); a <= std::min(scale + 1, scale_top); ++a)
      for (int b = std::max(min - 1, 0); b <= std::min(min + 1, scale_top); ++b) {
        const float error =
            sums_of<kValues>(values, {0, top}, d * static_cast<float>(a), dmin * static_cast<float>(b)).error;
        if (error < best) best = error, out.scale[s] = a, out.min[s] = b;
      }
    codes_of<kValues>(values, {0, top}, d * static_cast<float>(out.scale[s]),
                      dmin * static_cast<float>(out.min[s]), &out.q[static_cast<size_t>(s) * kValues]);
  }
  return out;
}

Integers<16> encode_symmetric(const float* x, float n, int scale_low, int scale_high) {
  constexpr int kSubs = 16, kValues = 16;
  std::array<float, kSubs> scales;
  for (int s = 0; s < kSubs; ++s) scales[s] = fit_symmetric<kValues>(x + s * kValues, n).scale;
  Integers<kSubs> out;
  const float d = shared_scale(scales.data(), kSubs, static_cast<float>(scale_low), out.d);
  for (int s = 0; s < kSubs; ++s) {
    const float* values = x + s * kValues;
    const int scale = d != 0
                          ? static_cast<int>(std::clamp(nearest(scales[s] / d), static_cast<float>(scale_low),
                                                        static_cast<float>(scale_high)))
                          : 0;
    float best = HUGE_VALF;
    for (int a = std::max(scale - 1, scale_low); a <= std::min(scale + 1, scale_high); ++a) {
      const float error = sums_of<kValues>(values, {-n, n - 1}, d * static_cast<float>(a), 0).error;
      if (error < best) best = error, out.scale[s] = a;
    }
    codes_of<kValues>(values, {-n, n - 1}, d * static_cast<float>(out.scale[s]), 0,
                      &out.q[static_cast<size_t>(s) * kValues]);
  }
  return out;
}

std::byte byte_of(unsigned value) { return static_cast<std::byte>(value); }

// 8 scales and minima of 6 bits in 12 bytes: see scale_min in ggml_kquants.cpp.
void pack_scale_mins(const Integers<8>& v, std::byte* out) {
  for (size_t i = 0; i < 4; ++i) {
    const auto a = static_cast<unsigned>(v.scale[i]), b = static_cast<unsigned>(v.min[i]);
    const auto c = static_cast<unsigned>(v.scale[i + 4]), e = static_cast<unsigned>(v.min[i + 4]);
    out[i] = byte_of(a | (c >> 4) << 6);
    out[i + 4] = byte_of(b | (e >> 4) << 6);
    out[i + 8] = byte_of((c & 15) | (e & 15) << 4);
  }
}

// Bits 2k of bytes 32h … 32h + 31 are the two low bits of values 128h + 32k ….
void pack_pairs(const uint8_t* q, std::byte* out) {
  for (size_t h = 0; h < 2; ++h)
    for (size_t i = 0; i < 32; ++i) {
      unsigned packed = 0;
      for (size_t k = 0; k < 4; ++k) packed |= (q[128 * h + 32 * k + i] & 3u) << (2 * k);
      out[32 * h + i] = byte_of(packed);
    }
}

// The low nibbles of 32 bytes are 32 values, their high ones the next 32.
void pack_nibbles(const uint8_t* q, std::byte* out) {
  for (size_t pair = 0; pair < 4; ++pair)
    for (size_t i = 0; i < 32; ++i)
      out[32 * pair + i] = byte_of((q[64 * pair + i] & 15u) | (q[64 * pair + 32 + i] & 15u) << 4);
}

void encode_q2_k(const float* x, std::byte* block) {
  const Integers<16> v = encode_affine<16>(x, 3, 15);
  for (size_t s = 0; s < 16; ++s) block[s] = byte_of(static_cast<unsigned>(v.scale[s] | v.min[s] << 4));
  pack_pairs(v.q.data(), block + 16);
  store(block + 80, v.d);
  store(block + 82, v.dmin);
}

void encode_q3_k(const float* x, std::byte* block) {
  const Integers<16> v = encode_symmetric(x, 4, -32, 31);
  for (size_t i = 0; i < 32; ++i) {
    unsigned high = 0;
    for (size_t bit = 0; bit < 8; ++bit) high |= (v.q[32 * bit + i] >> 2 & 1u) << bit;
    block[i] = byte_of(high);
  }
  pack_pairs(v.q.data(), block + 32);
  for (size_t i = 0; i < 12; ++i) block[96 + i] = std::byte{0};
  for (size_t s = 0; s < 16; ++s) {
    const auto scale = static_cast<unsigned>(v.scale[s] + 32);
    block[96 + s % 8] |= byte_of((scale & 15) << (s < 8 ? 0 : 4));
    block[104 + s % 4] |= byte_of((scale >> 4) << (2 * (s / 4)));
  }
  store(block + 108, v.d);
}

void encode_q4_k(const float* x, std::byte* block) {
  const Integers<8> v = encode_affine<8>(x, 15, 63);
  store(block, v.d);
  store(block + 2, v.dmin);
  pack_scale_mins(v, block + 4);
  pack_nibbles(v.q.data(), block + 16);
}

void encode_q5_k(const float* x, std::byte* block) {
  const Integers<8> v = encode_affine<8>(x, 31, 63);
  store(block, v.d);
  store(block + 2, v.dmin);
  pack_scale_mins(v, block + 4);
  for (size_t i = 0; i < 32; ++i) {
    unsigned high = 0;
    for (size_t s = 0; s < 8; ++s) high |= (v.q[32 * s + i] >> 4 & 1u) << s;
    block[16 + i] = byte_of(high);
  }
  pack_nibbles(v.q.data(), block + 48);
}

void encode_q6_k(const float* x, std::byte* block) {
  const Integers<16> v = encode_symmetric(x, 32, -128, 127);
  for (size_t half = 0; half < 2; ++half)
    for (size_t i = 0; i < 32; ++i) {
      const uint8_t* q = v.q.data() + 128 * half + i;
      block[64 * half + i] = byte_of((q[0] & 15u) | (q[64] & 15u) << 4);
      block[64 * half + 32 + i] = byte_of((q[32] & 15u) | (q[96] & 15u) << 4);
      block[128 + 32 * half + i] =
          byte_of(q[0] >> 4 | (q[32] >> 4) << 2 | (q[64] >> 4) << 4 | unsigned{q[96]} >> 4 << 6);
    }
  for (size_t s = 0; s < 16; ++s) block[192 + s] = byte_of(static_cast<unsigned>(v.scale[s]) & 255u);
  store(block + 208, v.d);
}

struct Encoder {
  GgmlType type;
  void (*encode)(const float* x, std::byte* block);
  size_t d;  // where the f16 scale lies
};
constexpr Encoder kEncoders[] = {{GgmlType::kQ2_K, encode_q2_k, 80},
                                 {GgmlType::kQ3_K, encode_q3_k, 108},
                                 {GgmlType::kQ4_K, encode_q4_k, 0},
                                 {GgmlType::kQ5_K, encode_q5_k, 0},
                                 {GgmlType::kQ6_K, encode_q6_k, 208}};

}  // namespace

void encode_ggml(uint32_t type, std::span<const float> values, std::byte* blocks) {
  const GgmlBlock block = ggml_block(type);
  const auto* it = std::find_if(std::begin(kEncoders), std::end(kEncoders),
                                [&](const Encoder& e) { return static_cast<uint32_t>(e.type) == type; });
  require(it != std::end(kEncoders) && values.size() % kBlock == 0, "quantize",
          "cannot encode {} values to {}", values.size(), ggml_type_name(type));
  for (size_t i = 0; i < values.size(); i += kBlock, blocks += block.bytes) {
    const float* x = values.data() + i;
    if (std::all_of(x, x + kBlock, [](float v) { return std::isfinite(v); })) {
      it->encode(x, blocks);
      continue;
    }
    std::fill_n(blocks, block.bytes, std::byte{0});
    store(blocks + it->d, to_f16(std::nanf("")));
  }
}

}  // namespace nibble::quant
