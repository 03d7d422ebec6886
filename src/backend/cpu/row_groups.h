// How RowGroups (kernels/matvec.h) lie: [group][block]{each part of the header of every row, each word of 4
// bytes of every row}, where a block is the file's own of one row. Parts are the f16 scale (and the f16
// minimum after all scales) of Q4_0, Q4_1 and Q8_0, the 16 bytes of Q4_K.
#pragma once
#include "backend/kernels/matvec.h"

namespace nibble::backend::cpu {

// Rows side by side: the 32-bit lanes of a vector of up to 64 bytes.
int64_t rows_of_group();
// Of the groups of a weight, the last one whole.
int64_t bytes_of_groups(const quant::Weight& w);

}  // namespace nibble::backend::cpu
