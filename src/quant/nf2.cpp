// NF2: NF4's construction with 4 levels (see nf3.cpp), one of them negative.
#include "quant/codebook.h"

namespace nibble::quant {

constexpr Codebook4 kBook = make_low_codebook<4>({-1.0f, 0.0f, 0.43581822514533997f, 1.0f});
static_assert(kBook.zero_code == 1);
const Codebook4 kNf2 = kBook;

}  // namespace nibble::quant
