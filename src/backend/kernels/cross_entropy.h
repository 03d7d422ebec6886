// Softmax cross-entropy of one chunk of logits, and its gradient in their place.
// logits F32 [n, V] in: scores; out (when `gradient`): (softmax - onehot) · factor. labels I32 [n]; a label
// of -1 is padding: loss 0, gradient 0. losses F32 [n]: -log p(label). Each row's sums run in a fixed order.
#pragma once
#include "backend/kernel_slot.h"

namespace nibble::backend {

inline KernelSlot<void(Stream&, Tensor& logits, const Tensor& labels, float factor, bool gradient,
                       Tensor& losses)>
    cross_entropy{"cross_entropy"};

}  // namespace nibble::backend
