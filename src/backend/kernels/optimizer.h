// One pass over a parameter, its gradient and its state. Everything F32 unless said otherwise; counts are
// equal. Formulas: Loshchilov & Hutter 2019 (AdamW, decoupled decay, in PyTorch's order: decay before the
// update); Dettmers et al. 2022 (8-bit states, blocks of 256, dynamic code); Chen et al. 2023 (Lion).
// grad_scale multiplies the gradient first (global-norm clipping). step counts from 1.
#pragma once
#include "backend/kernel_slot.h"

namespace nibble::backend {

struct AdamArgs {
  float learning_rate, beta1, beta2, eps, weight_decay, grad_scale;
  int64_t step;
};
inline KernelSlot<void(Stream&, Tensor& p, const Tensor& g, Tensor& m, Tensor& v, AdamArgs args)> adamw{
    "adamw"};

// m codes (signed map) and v codes (unsigned map) U8 [n], their absmax F32 [ceil(n / 256)].
inline KernelSlot<void(Stream&, Tensor& p, const Tensor& g, Tensor& m_codes, Tensor& m_absmax,
                       Tensor& v_codes, Tensor& v_absmax, AdamArgs args)>
    adamw_8bit{"adamw_8bit"};

struct SgdArgs {
  float learning_rate, momentum, weight_decay, grad_scale;
};
inline KernelSlot<void(Stream&, Tensor& p, const Tensor& g, Tensor& velocity, SgdArgs args)> sgd{"sgd"};

struct LionArgs {
  float learning_rate, beta1, beta2, weight_decay, grad_scale;
};
inline KernelSlot<void(Stream&, Tensor& p, const Tensor& g, Tensor& m, LionArgs args)> lion{"lion"};

}  // namespace nibble::backend
