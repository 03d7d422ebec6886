// RMSNorm: y[t, :] = x[t, :] · rstd[t] · w, rstd = 1 / sqrt(mean(x²) + eps)      (Zhang & Sennrich 2019, eq. 4)
// x, y [T, D] F32 or BF16 (the same); w [D] F32 or BF16; rstd F32 [T]; mean in f32.
#pragma once
#include "backend/kernel_slot.h"

namespace nibble::backend {

inline KernelSlot<void(Stream&, const Tensor& x, const Tensor& w, float eps, Tensor& y, Tensor& rstd)> rms_norm{"rms_norm"};

// dx: from dy, x, w, rstd.  dw (F32, may be undefined): Σ_t dy · x · rstd over a fixed tree of row chunks.
inline KernelSlot<void(Stream&, const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& rstd, Tensor& dx, bool accumulate_dx,
                       Tensor& dw, bool accumulate_dw)>
    rms_norm_backward{"rms_norm_backward"};

}  // namespace nibble::backend
