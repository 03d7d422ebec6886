// Element-by-element kernels. Operands are F32 or BF16 (each its own), computed in f32 with one rounding at
// the end. Numeric class: exact up to that rounding; the same bytes on every instruction set and for any
// number of threads.
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

// What stands between two products of a feed-forward, or behind a pooler's (tanh); formulas in
// cpu/activation-inl.h.
enum class Activation : uint8_t { kRelu, kGelu, kGeluTanh, kSilu, kTanh };

// out = f(x).
inline KernelSlot<void(Stream&, const Tensor& x, Activation f, Tensor& out)> activation{"activation"};
// dx (+)= dy · f'(x); dx may be the same memory as x or dy.
inline KernelSlot<void(Stream&, const Tensor& dy, const Tensor& x, Activation f, Tensor& dx, bool accumulate)>
    activation_backward{"activation_backward"};

// Gated units (Shazeer 2020; SwiGLU with silu, GEGLU with gelu): out = f(gate) · up. All [T, F].
inline KernelSlot<void(Stream&, const Tensor& gate, const Tensor& up, Activation f, Tensor& out)> gated{
    "gated"};
// dgate and dup from dy; each may be undefined (not wanted). They may be the same memory as gate and up, in
// this order.
inline KernelSlot<void(Stream&, const Tensor& dy, const Tensor& gate, const Tensor& up, Activation f,
                       Tensor& dgate, bool accumulate_gate, Tensor& dup, bool accumulate_up)>
    gated_backward{"gated_backward"};

// out = cap · tanh(x / cap), F32, and dx = dy · (1 - (y / cap)²) from its result y (Gemma 2's soft cap). out
// may be x, dx may be dy.
inline KernelSlot<void(Stream&, const Tensor& x, float cap, Tensor& out)> softcap{"softcap"};
inline KernelSlot<void(Stream&, const Tensor& dy, const Tensor& y, float cap, Tensor& dx)> softcap_backward{
    "softcap_backward"};

// Some columns of x [T, n], in groups: x[t, g · stride + offset + i] ↔ part[t, g · width + i] for g < groups,
// i < width.
struct Columns {
  int64_t groups = 1, stride = 0, offset = 0, width = 0;
};
inline KernelSlot<void(Stream&, const Tensor& x, Columns columns, Tensor& part)> take_columns{"take_columns"};
// x at those columns += part; the other columns are left as they are.
inline KernelSlot<void(Stream&, const Tensor& part, Columns columns, Tensor& x)> add_columns{"add_columns"};

// Dropout mask from Philox: element i of stream (seed, stream) is kept when uniform(i) >= p; out = kept ? x /
// (1 - p) : 0. The same call on dy is its backward.
inline KernelSlot<void(Stream&, const Tensor& x, float p, uint64_t seed, uint64_t stream_id, Tensor& out,
                       bool accumulate)>
    dropout{"dropout"};

// out[i, :] = x[rows[i], :]; rows I32 [n].  scatter: out[rows[i], :] = x[i, :], or += x[i, :]; rows
// ascending, distinct.
inline KernelSlot<void(Stream&, const Tensor& x, const Tensor& rows, Tensor& out)> gather_rows{"gather_rows"};
inline KernelSlot<void(Stream&, const Tensor& x, const Tensor& rows, Tensor& out)> scatter_rows{
    "scatter_rows"};
inline KernelSlot<void(Stream&, const Tensor& x, const Tensor& rows, Tensor& out)> scatter_add_rows{
    "scatter_add_rows"};

// out F32 [1] = Σ x² in f64 over a fixed tree (then rounded); a non-finite element makes it non-finite.
inline KernelSlot<void(Stream&, const Tensor& x, Tensor& out)> sum_of_squares{"sum_of_squares"};

}  // namespace nibble::backend
