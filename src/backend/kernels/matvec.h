// Products with few rows, straight from a weight's stored form: generation reads every weight once per token,
// so bytes are the limit and nothing is decoded to memory.
#pragma once
#include "backend/kernel_slot.h"
#include "quant/weight.h"

namespace nibble::backend {

// y[t, :] = W · x[t, :] for t < rows(x), accumulated in f32 in a fixed order; x F32 or BF16 [t, in], y F32 or
// BF16 [t, out], t <= kMatvecRows. Works for every format (dense, code book with or without double
// quantization, int8, GGUF).
inline constexpr int64_t kMatvecRows = 16;
inline KernelSlot<void(Stream&, const Tensor& x, const quant::Weight& w, Tensor& y)> weight_matvec{
    "weight_matvec"};

}  // namespace nibble::backend
