// One stored row of any weight as f32, in the calling thread; see decode_weight.cpp.
#pragma once
#include "quant/weight.h"

namespace nibble::backend::cpu {

// Columns [begin, end) of logical row r; for GGUF blocks both lie on block borders (or at the end of the
// row).
void decode_row_part(const quant::Weight& w, int64_t row, int64_t begin, int64_t end, float* out);

}  // namespace nibble::backend::cpu
