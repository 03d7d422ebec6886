// What one step of k multiplies in a product: a float of each operand, or a pair of shorter numbers in its
// place.
#pragma once
#include <cstdint>
#include <optional>

namespace nibble::backend::cpu {

// kPair: of bf16, by the processor's instruction (AVX512-BF16). kEmulatedPair: the same arithmetic from f32
// multiply-adds, for tests on other processors. kFixedPoint: of 16-bit integers (fixed_point-inl.h).
enum class Step : uint8_t { kFloat, kPair, kEmulatedPair, kFixedPoint };

// What products of bf16 use here: kPair where the processor and the chosen instruction set have it.
Step bf16_step();
// For tests; nothing: what the processor has.
void force_bf16_step(std::optional<Step> step);

}  // namespace nibble::backend::cpu
