// Element types of tensors, and the scalar conversions between them. bf16 and f16 round to nearest, ties to
// even.
#pragma once
#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace nibble {

enum class DType : uint8_t { kF32, kF16, kBF16, kI32, kI64, kU8, kI8 };

inline constexpr DType kF32 = DType::kF32, kF16 = DType::kF16, kBF16 = DType::kBF16, kI32 = DType::kI32,
                       kI64 = DType::kI64, kU8 = DType::kU8, kI8 = DType::kI8;

constexpr int64_t dtype_bytes(DType t) {
  switch (t) {
    case kF32:
    case kI32:
      return 4;
    case kF16:
    case kBF16:
      return 2;
    case kI64:
      return 8;
    case kU8:
    case kI8:
      return 1;
  }
  return 0;
}

// "f32", "bf16" … for people; safetensors writes "F32", "BF16" …
constexpr const char* dtype_name(DType t) {
  switch (t) {
    case kF32:
      return "f32";
    case kF16:
      return "f16";
    case kBF16:
      return "bf16";
    case kI32:
      return "i32";
    case kI64:
      return "i64";
    case kU8:
      return "u8";
    case kI8:
      return "i8";
  }
  return "?";
}

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

inline float to_float(BFloat16 h) { return std::bit_cast<float>(uint32_t{h.bits} << 16); }
inline BFloat16 to_bf16(float f) {
  const auto u = std::bit_cast<uint32_t>(f);
  if ((u & 0x7FFFFFFFu) > 0x7F800000u) return {static_cast<uint16_t>((u >> 16) | 0x40u)};  // NaN stays NaN
  return {static_cast<uint16_t>((u + 0x7FFFu + ((u >> 16) & 1u)) >> 16)};
}

inline float to_float(Float16 h) {
  const uint32_t sign = uint32_t{h.bits & 0x8000u} << 16, exponent = (h.bits >> 10) & 0x1Fu,
                 mantissa = h.bits & 0x3FFu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000u | (mantissa << 13));
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1.0p-24f;
    return sign != 0 ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}
inline Float16 to_f16(float f) {
  const auto u = std::bit_cast<uint32_t>(f);
  const auto sign = static_cast<uint16_t>((u >> 16) & 0x8000u);
  const uint32_t a = u & 0x7FFFFFFFu;
  if (a > 0x7F800000u) return {static_cast<uint16_t>(sign | 0x7E00u)};
  if (a >= 0x477FF000u) return {static_cast<uint16_t>(sign | 0x7C00u)};
  if (a < 0x38800000u) {  // subnormal: add and subtract 0.5 so that the FPU rounds at 2^-24
    const float magnitude = std::bit_cast<float>(a) + 0.5f;
    return {static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(magnitude) - 0x3F000000u))};
  }
  return {static_cast<uint16_t>(sign | ((a - 0x38000000u + 0xFFFu + ((a >> 13) & 1u)) >> 13))};
}

// The DType of a C++ element type.
template <class T>
inline constexpr DType dtype_of = DType::kU8;
template <>
inline constexpr DType dtype_of<float> = kF32;
template <>
inline constexpr DType dtype_of<BFloat16> = kBF16;
template <>
inline constexpr DType dtype_of<Float16> = kF16;
template <>
inline constexpr DType dtype_of<int32_t> = kI32;
template <>
inline constexpr DType dtype_of<int64_t> = kI64;
template <>
inline constexpr DType dtype_of<uint8_t> = kU8;
template <>
inline constexpr DType dtype_of<int8_t> = kI8;

}  // namespace nibble
