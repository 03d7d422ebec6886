// E3M0: powers of two, sign and three exponent bits, divided by the largest: 0 and ±2^-6 … ±1.
// Source: the comparison of data types in QLoRA, table 2.
#include "quant/codebook.h"

namespace nibble::quant {

constexpr Codebook4 kBook =
    make_codebook({0.0f, 1.0f / 64, 1.0f / 32, 1.0f / 16, 1.0f / 8, 1.0f / 4, 1.0f / 2, 1.0f, -0.0f,
                   -1.0f / 64, -1.0f / 32, -1.0f / 16, -1.0f / 8, -1.0f / 4, -1.0f / 2, -1.0f});
static_assert(kBook.zero_code == 0);
const Codebook4 kE3m0 = kBook;

}  // namespace nibble::quant
