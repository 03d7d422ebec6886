// Squared error of a score per row, and its gradient in the scores' place.
// scores F32 [n, 1] in; out (when `gradient`): 2 (score - target) · factor. targets F32 [n]. losses F32 [n]:
// (score - target)². Numeric class: exact up to one rounding per operation.
#pragma once
#include "backend/kernel_slot.h"

namespace nibble::backend {

inline KernelSlot<void(Stream&, Tensor& scores, const Tensor& targets, float factor, bool gradient,
                       Tensor& losses)>
    squared_error{"squared_error"};

}  // namespace nibble::backend
