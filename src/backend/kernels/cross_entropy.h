// Softmax cross-entropy of one chunk of logits, and its gradient in their place.
// logits F32 [n, V] in: scores; out, where a gradient is asked for: (softmax - onehot) · factor. labels I32
// [n]; a label of -1 is padding: loss 0, gradient 0. losses F32 [n]: -log p(label). Each row's sums run in a
// fixed order.
#pragma once
#include "backend/kernel_slot.h"

namespace nibble::backend {

// kBF16: the gradient as BF16 in the first half of each row's bytes, rounded as products round it (matmul.h);
// the second half is then undefined.
enum class LossGradient : uint8_t { kNone, kF32, kBF16 };

inline KernelSlot<void(Stream&, Tensor& logits, const Tensor& labels, float factor, LossGradient gradient,
                       Tensor& losses)>
    cross_entropy{"cross_entropy"};

}  // namespace nibble::backend
