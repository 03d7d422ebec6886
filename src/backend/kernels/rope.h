// Rotary position embedding (Su et al. 2021) in the Hugging Face layout: the pair of dimension i < n/2 is (i,
// i + n/2).
//   y[i] = x[i] cos - x[i + n/2] sin,   y[i + n/2] = x[i + n/2] cos + x[i] sin
// x [T, heads · K]; cos_sin F32 [positions, n] holds n/2 cosines then n/2 sines of each position (scalings
// and attention factors are already in it); positions I32 [T]; the first n <= K dimensions of each head are
// rotated, the rest copied. direction +1 forward, -1 backward (the transpose). out may be x.
#pragma once
#include "backend/kernel_slot.h"

namespace nibble::backend {

inline KernelSlot<void(Stream&, const Tensor& x, const Tensor& cos_sin, const Tensor& positions,
                       int64_t head_width, int direction, Tensor& out)>
    rope{"rope"};

}  // namespace nibble::backend
