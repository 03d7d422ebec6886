// Memory of f32 or bf16 whose type is looked up at each vector: for kernels of many operands, where code for
// every combination of types takes longer to compile than the branch, which is always taken alike, takes to
// run.
#pragma once
#include "tensor/tensor.h"

namespace nibble::backend::cpu {

struct AnyFloats {
  std::byte* data = nullptr;
  bool narrow = false;  // bf16

  AnyFloats() = default;
  // An undefined tensor gives null. Errors: Error{op} for any type but f32 and bf16.
  AnyFloats(const Tensor& t, const char* op) {
    if (!t) return;
    require(t.dtype() == kF32 || t.dtype() == kBF16, op, "expected f32 or bf16, got {}",
            dtype_name(t.dtype()));
    data = t.raw();
    narrow = t.dtype() == kBF16;
  }
  float* f32() const { return reinterpret_cast<float*>(data); }
  BFloat16* bf16() const { return reinterpret_cast<BFloat16*>(data); }
  explicit operator bool() const { return data != nullptr; }
  AnyFloats operator+(int64_t i) const {
    AnyFloats moved = *this;
    moved.data += i * (narrow ? 2 : 4);
    return moved;
  }
};

}  // namespace nibble::backend::cpu
