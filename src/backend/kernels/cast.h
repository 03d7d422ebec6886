// Conversions between float types, one rounding to nearest even.
#pragma once
#include "backend/kernel_slot.h"

namespace nibble::backend {

// out = in, element by element; F32, F16 or BF16 each, equal element counts. Bit for bit what
// tensor/dtype.h's scalar conversions give, on every instruction set.
inline KernelSlot<void(Stream&, const Tensor& in, Tensor& out)> cast{"cast"};

}  // namespace nibble::backend
