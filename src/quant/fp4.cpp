// FP4 as bitsandbytes defines it: a sign bit, then {0, 1/16, 8, 12, 4, 6, 2, 3} / 12 by the three lower bits.
// It is not the E2M1 of MXFP4 and NVFP4 (e2m1.cpp): its smallest value is 16 times smaller. Its CPU backend
// puts a threshold at 0 between codes 0 and 8, so tiny positive values take code 8, which decodes to -0.
#include "quant/codebook.h"

namespace nibble::quant {

constexpr Codebook4 kBook =
    make_codebook({0.0f, 0.0625f / 12, 8.0f / 12, 1.0f, 4.0f / 12, 6.0f / 12, 2.0f / 12, 3.0f / 12, -0.0f,
                   -0.0625f / 12, -8.0f / 12, -1.0f, -4.0f / 12, -6.0f / 12, -2.0f / 12, -3.0f / 12},
                  Zeros::kBitsandbytes);
static_assert(kBook.zero_code == 0);
const Codebook4 kFp4 = kBook;

}  // namespace nibble::quant
