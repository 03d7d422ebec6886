// Element types of operands, turned into C++ types once per call.
#pragma once
#include "tensor/tensor.h"

namespace nibble::backend::cpu {

template <class T>
struct Tag {
  using type = T;
};

// f(Tag<float>) or f(Tag<BFloat16>). Errors: Error{op} for any other type.
template <class F>
void with_float(DType t, const char* op, F&& f) {
  if (t == kF32) return f(Tag<float>{});
  require(t == kBF16, op, "expected f32 or bf16, got {}", dtype_name(t));
  f(Tag<BFloat16>{});
}

inline float to_float(float x) { return x; }
using nibble::to_float;
inline void from_float(float x, float& out) { out = x; }
inline void from_float(float x, BFloat16& out) { out = to_bf16(x); }

}  // namespace nibble::backend::cpu
