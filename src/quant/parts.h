// What weight.cpp is put together from: the encoders and decoders of each kind, over flat runs of values.
// Values in mapped files may lie at any byte, so they are read with load_at.
#pragma once
#include <cstring>

#include "quant/weight.h"

namespace nibble::quant {

template <class T>
T load_at(const std::byte* data, int64_t i) {
  T value;
  std::memcpy(&value, data + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

// max |v|, NaN (the quiet one) when any value is NaN.
float largest_magnitude(std::span<const float> values);

// codebook.cpp: values [begin, end) of the row-major order.
void encode_codebook(std::span<const float> values, Weight& w);
void decode_codebook(const Weight& w, int64_t begin, int64_t end, float* out);
// n codes of one block, which starts at a whole byte; codes[n] is there (4 bits: the padding).
void pack_codes(const uint8_t* codes, int64_t n, int bits, uint8_t* out);
// int8.cpp
void encode_int8(std::span<const float> values, Weight& w);
void decode_int8_row(const Weight& w, int64_t row, float* out);

// Values [begin, end) of the row-major order of a kGgml weight.
void decode_ggml(const Weight& w, int64_t begin, int64_t end, float* out);

// ggml_encode.cpp: whole blocks of q2_k … q6_k. Errors: Error{"quantize"} for another type.
void encode_ggml(uint32_t type, std::span<const float> values, std::byte* blocks);

// ggml_legacy.cpp and ggml_kquants.cpp: one block of 32 or 256 values.
void decode_q4_0(const std::byte* block, float* out);
void decode_q4_1(const std::byte* block, float* out);
void decode_q5_0(const std::byte* block, float* out);
void decode_q5_1(const std::byte* block, float* out);
void decode_q8_0(const std::byte* block, float* out);
void decode_q2_k(const std::byte* block, float* out);
void decode_q3_k(const std::byte* block, float* out);
void decode_q4_k(const std::byte* block, float* out);
void decode_q5_k(const std::byte* block, float* out);
void decode_q6_k(const std::byte* block, float* out);

}  // namespace nibble::quant
