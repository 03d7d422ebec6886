// Adapters that begin at what quantization lost (LoftQ, Li et al. 2023, one iteration over a base that keeps
// its codes; PEFT's replace_lora_weights_loftq).
#pragma once
#include "nn/lora.h"

namespace nibble::nn {

// Sets A and B of adapter `id` so that scale · B · A is near the best approximation of rank r to W - Q(W) in
// the Frobenius norm: W as `original` has it, Q(W) as the Linear holds it. By eight subspace iterations from
// the adapter's own A, so the result follows the seed; it does not depend on threads. Rounding errors have a
// flat spectrum, on which that takes at least 90 % of what the best one would. Each component's length is
// divided evenly between its row of A and its column of B; one of length zero keeps A as it is and B zero.
// Memory: two f32 matrices of a Linear's shape at a time, from stream's allocator. Returns the Linears that
// were set: those whose weight is quantized other than `original` has it. Errors: Error{"adapter"}: a scale
// of zero.
int64_t start_at_quantization_error(const std::function<void(const LinearVisitor&)>& visit, int id,
                                    const io::WeightSource& original, backend::Stream& stream);

}  // namespace nibble::nn
