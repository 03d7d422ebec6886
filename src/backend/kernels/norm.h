// RMSNorm: y[t, :] = x[t, :] · rstd[t] · (offset + w), rstd = 1 / sqrt(mean(x²) + eps)      (Zhang & Sennrich
// 2019, eq. 4) x, y [T, D] F32 or BF16 (the same); w [D] F32 or BF16; rstd F32 [T]; mean in f32. offset is 0,
// or Gemma's 1.
#pragma once
#include "backend/kernel_slot.h"

namespace nibble::backend {

inline KernelSlot<void(Stream&, const Tensor& x, const Tensor& w, float eps, float offset, Tensor& y,
                       Tensor& rstd)>
    rms_norm{"rms_norm"};

// dx: from dy, x, w, rstd.  dw (F32, may be undefined): Σ_t dy · x · rstd over a fixed tree of row chunks.
inline KernelSlot<void(Stream&, const Tensor& dy, const Tensor& x, const Tensor& w, float offset,
                       const Tensor& rstd, Tensor& dx, bool accumulate_dx, Tensor& dw, bool accumulate_dw)>
    rms_norm_backward{"rms_norm_backward"};

// LayerNorm: y[t, :] = (x[t, :] - mean[t]) · rstd[t] · w + b, rstd = 1 / sqrt(var(x) + eps), var over D (Ba
// et al. 2016) x, y [T, D] F32 or BF16 (the same); w, b F32 [D]; mean, rstd F32 [T].
inline KernelSlot<void(Stream&, const Tensor& x, const Tensor& w, const Tensor& b, float eps, Tensor& y,
                       Tensor& mean, Tensor& rstd)>
    layer_norm{"layer_norm"};

// dx: from dy, x, w, mean, rstd.  dw = Σ_t dy · (x - mean) · rstd and db = Σ_t dy (F32; each may be
// undefined) over a fixed tree of row chunks.
inline KernelSlot<void(Stream&, const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& mean,
                       const Tensor& rstd, Tensor& dx, bool accumulate_dx, Tensor& dw, bool accumulate_dw,
                       Tensor& db, bool accumulate_db)>
    layer_norm_backward{"layer_norm_backward"};

}  // namespace nibble::backend
