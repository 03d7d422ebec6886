// AF4 (AbnormalFloat): the code book that minimises the expected absolute error of normal values in blocks
// of 64. Source: NF4 Isn't Information Theoretically Optimal (arXiv 2306.06965); codes descend, as
// bitsandbytes lists them.
#include "quant/codebook.h"

namespace nibble::quant {

constexpr Codebook4 kBook = make_codebook(
    {1.0f, 0.72424863f, 0.55496234f, 0.42563882f, 0.31675666f, 0.21961274f, 0.12934483f, 0.04273164f, 0.0f,
     -0.04934812f, -0.14982478f, -0.25607552f, -0.3736951f, -0.51243739f, -0.69441008f, -1.0f});
static_assert(kBook.zero_code == 8);
const Codebook4 kAf4 = kBook;

}  // namespace nibble::quant
