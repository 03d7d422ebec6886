// Int4: fifteen evenly spaced levels -7 … 7, divided by 7, in the order of codes that bitsandbytes lists
// (descending, zero twice; the second zero is never made).
#include "quant/codebook.h"

namespace nibble::quant {

constexpr Codebook4 kBook =
    make_codebook({7.0f / 7, 6.0f / 7, 5.0f / 7, 4.0f / 7, 3.0f / 7, 2.0f / 7, 1.0f / 7, 0.0f, 0.0f,
                   -1.0f / 7, -2.0f / 7, -3.0f / 7, -4.0f / 7, -5.0f / 7, -6.0f / 7, -7.0f / 7});
static_assert(kBook.zero_code == 7);
const Codebook4 kInt4 = kBook;

}  // namespace nibble::quant
