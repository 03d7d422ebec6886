// Element-by-element kernels. Operands are F32 or BF16 (each its own), computed in f32 with one rounding at the end.
// Numeric class: exact up to that rounding; the same bytes on every instruction set and for any number of threads.
#pragma once
#include <cstdint>

#include "backend/kernel_slot.h"

namespace nibble::backend {

// out = value everywhere (F32, BF16, I32).
inline KernelSlot<void(Stream&, Tensor& out, float value)> fill{"fill"};

// accumulate ? out += x : out = x. Equal shapes.
inline KernelSlot<void(Stream&, const Tensor& x, Tensor& out, bool accumulate)> accumulate{"accumulate"};

// out = a + b. Equal shapes; out may be a or b.
inline KernelSlot<void(Stream&, const Tensor& a, const Tensor& b, Tensor& out)> add{"add"};

// out[r, :] = x[r, :] + bias[:]. x [rows, n], bias [n] (F32 or BF16); out may be x.
inline KernelSlot<void(Stream&, const Tensor& x, const Tensor& bias, Tensor& out)> add_bias{"add_bias"};

// accumulate ? out[n] += Σ_rows x : out[n] = Σ_rows x; out F32; fixed tree over row chunks.
inline KernelSlot<void(Stream&, const Tensor& x, Tensor& out, bool accumulate)> sum_rows{"sum_rows"};

// out = accumulate ? out + factor x : factor x.
inline KernelSlot<void(Stream&, const Tensor& x, float factor, Tensor& out, bool accumulate)> scale{"scale"};

// SwiGLU (Shazeer 2020): out = silu(gate) · up; silu(z) = z / (1 + exp(-z)). All [T, F].
inline KernelSlot<void(Stream&, const Tensor& gate, const Tensor& up, Tensor& out)> swiglu{"swiglu"};
// dgate and dup from dy; each may be undefined (not wanted). They may be the same memory as gate and up, in this order.
inline KernelSlot<void(Stream&, const Tensor& dy, const Tensor& gate, const Tensor& up, Tensor& dgate, bool accumulate_gate,
                       Tensor& dup, bool accumulate_up)>
    swiglu_backward{"swiglu_backward"};

// Dropout mask from Philox: element i of stream (seed, stream) is kept when uniform(i) >= p; out = kept ? x / (1 - p) : 0.
// The same call on dy is its backward.
inline KernelSlot<void(Stream&, const Tensor& x, float p, uint64_t seed, uint64_t stream_id, Tensor& out, bool accumulate)> dropout{"dropout"};

// out[i, :] = x[rows[i], :]; rows I32 [n].  scatter: accumulate into out[rows[i], :] += x[i, :], rows ascending, distinct.
inline KernelSlot<void(Stream&, const Tensor& x, const Tensor& rows, Tensor& out)> gather_rows{"gather_rows"};
inline KernelSlot<void(Stream&, const Tensor& x, const Tensor& rows, Tensor& out)> scatter_add_rows{"scatter_add_rows"};

// out F32 [1] = Σ x² in f64 over a fixed tree (then rounded); a non-finite element makes it non-finite.
inline KernelSlot<void(Stream&, const Tensor& x, Tensor& out)> sum_of_squares{"sum_of_squares"};

}  // namespace nibble::backend
