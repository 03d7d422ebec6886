// E2M1: the 4-bit float of the OCP Microscaling specification (sign, two exponent bits, one mantissa bit),
// divided by its largest value 6.
#include "quant/codebook.h"

namespace nibble::quant {

constexpr Codebook4 kBook =
    make_codebook({0.0f, 0.5f / 6, 1.0f / 6, 1.5f / 6, 2.0f / 6, 3.0f / 6, 4.0f / 6, 1.0f, -0.0f, -0.5f / 6,
                   -1.0f / 6, -1.5f / 6, -2.0f / 6, -3.0f / 6, -4.0f / 6, -1.0f});
static_assert(kBook.zero_code == 0);
const Codebook4 kE2m1 = kBook;

}  // namespace nibble::quant
