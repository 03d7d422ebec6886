// The products of generation in 16-bit integers: bf16 inputs and 4-bit code books. Each run of 64 inputs is
// scaled to 15 bits by its largest magnitude (bf16 carries 8), code-book values to 14 bits; products are
// summed in exact integers and scaled once per run. What this rounds is below what decoding to bf16 rounds.
#pragma once
#include "backend/kernels/matvec.h"

namespace nibble::backend::cpu {

// Code books whose blocks and rows are whole runs of 64.
bool matvec_int16_supports(const quant::Weight& w);
// As weight_matvec; x is BF16.
void matvec_int16(Stream& stream, const Tensor& x, std::span<Matvec> products);

}  // namespace nibble::backend::cpu
