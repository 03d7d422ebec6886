// What one step of k multiplies in a product: a float of each operand, or a pair of bf16 in its place.
#pragma once
#include <cstdint>
#include <optional>

namespace nibble::backend::cpu {

// kPair: by the processor's instruction (AVX512-BF16). kEmulatedPair: the same arithmetic from f32
// multiply-adds, for tests on other processors.
enum class Step : uint8_t { kFloat, kPair, kEmulatedPair };

// What products of bf16 use here: kPair where the processor and the chosen instruction set have it.
Step bf16_step();
// For tests; nothing: what the processor has.
void force_bf16_step(std::optional<Step> step);

}  // namespace nibble::backend::cpu
