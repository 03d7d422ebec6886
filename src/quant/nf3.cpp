// NF3: NF4's construction with 8 levels. With n levels the outermost quantile is the mean of 1 - 1/2n and 1 -
// 1/(2n - 2) (n = 16 gives NF4's 0.9677083); n/2 + 1 quantiles from there to the median are spread evenly
// over the positive side and n/2 over the negative one, the medians count once, and all are divided by the
// largest. Source: create_normal_map of bitsandbytes, whose 4 bits are a special case; values computed in
// double precision.
#include "quant/codebook.h"

namespace nibble::quant {

constexpr Codebook4 kBook =
    make_low_codebook<8>({-1.0f, -0.5350227355957031f, -0.24693138897418976f, 0.0f, 0.1833375245332718f,
                          0.38199394941329956f, 0.6229856610298157f, 1.0f});
static_assert(kBook.zero_code == 3);
const Codebook4 kNf3 = kBook;

}  // namespace nibble::quant
