// Products with few rows, straight from a weight's stored form: generation reads every weight once per token,
// so bytes are the limit and nothing is decoded to memory.
#pragma once
#include <span>

#include "backend/kernel_slot.h"
#include "quant/weight.h"

namespace nibble::backend {

// y[t, :] = W · x[t, :] for t < rows(x), accumulated in f32 in a fixed order; x F32 or BF16 [t, in], y F32 or
// BF16 [t, out], t <= kMatvecRows. Works for every format (dense, code book with or without double
// quantization, int8, GGUF). Several weights that read the same x (q, k and v) are one loop over all their
// rows; each y is what it would be alone.
inline constexpr int64_t kMatvecRows = 16;
struct Matvec {
  const quant::Weight* w;
  Tensor y;
};
inline KernelSlot<void(Stream&, const Tensor& x, std::span<Matvec> products)> weight_matvec{"weight_matvec"};

// For generation from a GGUF file's own blocks (Q4_0, Q4_1, Q4_K, Q8_0): the same products for any number of
// rows of x, BF16, rounded to 8 bits: each run of 32 is scaled by its largest magnitude, as llama.cpp has it.
// Sums are exact within a run. A row's result does not depend on the others.
bool has_rounded_product(const quant::Weight& w);
inline KernelSlot<void(Stream&, const Tensor& x, std::span<Matvec> products)> rounded_product{
    "rounded_product"};

}  // namespace nibble::backend
