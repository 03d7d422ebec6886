// Names the random numbers of one layer's dropout in one step: the layer's stream and the step, mixed
// (splitmix64).
#pragma once
#include <cstdint>

namespace nibble::ops {

constexpr uint64_t dropout_stream(uint64_t layer, uint64_t step) {
  uint64_t z = layer + (step + 1) * 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

}  // namespace nibble::ops
