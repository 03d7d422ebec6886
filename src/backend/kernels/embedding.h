// Token embedding: out[t, :] = W[ids[t], :] for any stored form of W (rows are decoded, the table never is).
// ids I32 [T]; out F32 or BF16 [T, D]. REQUIRES: 0 <= id < rows (checked by the op where ids are on the
// host).
#pragma once
#include "backend/kernel_slot.h"
#include "quant/weight.h"

namespace nibble::backend {

inline KernelSlot<void(Stream&, const Tensor& ids, const quant::Weight& w, Tensor& out)> embedding{
    "embedding"};
// dW[ids[t], :] += dy[t, :], F32, t ascending for each row.
inline KernelSlot<void(Stream&, const Tensor& dy, const Tensor& ids, Tensor& dw)> embedding_backward{
    "embedding_backward"};

}  // namespace nibble::backend
