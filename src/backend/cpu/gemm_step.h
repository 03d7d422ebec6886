// What one step of k multiplies in a product: a float of each operand, or two or four shorter numbers in its
// place.
#pragma once
#include <cstdint>
#include <optional>

namespace nibble::backend::cpu {

// kPair: of bf16, by the processor's instruction (AVX512-BF16). kEmulatedPair: the same arithmetic from f32
// multiply-adds, for tests on other processors. kFixedPoint: two 16-bit integers (fixed_point-inl.h). kByte:
// four of 8 bits (bytes-inl.h), by AVX512-VNNI. kEmulatedByte: the same bits from other instructions.
enum class Step : uint8_t { kFloat, kPair, kEmulatedPair, kFixedPoint, kByte, kEmulatedByte };

inline bool of_bytes(Step step) { return step == Step::kByte || step == Step::kEmulatedByte; }
inline int64_t values_of(Step step) { return step == Step::kFloat ? 1 : of_bytes(step) ? 4 : 2; }

// What products of bf16 use here: kPair where the processor and the chosen instruction set have it.
Step bf16_step();
// What products of bytes use here, likewise.
Step byte_step();
// For tests; nothing: what the processor has.
void force_bf16_step(std::optional<Step> step);
void force_byte_step(std::optional<Step> step);

}  // namespace nibble::backend::cpu
