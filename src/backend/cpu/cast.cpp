#include "backend/cpu/convert.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/simd_targets.h"
#include "base/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/cast.cpp"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway wants it:
#include "backend/cpu/convert-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

template <class From>
void convert_to(const From* from, int64_t n, DType to, std::byte* out) {
  if (to == kF32) convert(from, n, reinterpret_cast<float*>(out));
  if (to == kBF16) convert(from, n, reinterpret_cast<BFloat16*>(out));
  if (to == kF16) convert(from, n, reinterpret_cast<Float16*>(out));
}

void convert_values(DType from, const std::byte* in, int64_t n, DType to, std::byte* out) {
  if (from == kF32) convert_to(reinterpret_cast<const float*>(in), n, to, out);
  if (from == kBF16) convert_to(reinterpret_cast<const BFloat16*>(in), n, to, out);
  if (from == kF16) convert_to(reinterpret_cast<const Float16*>(in), n, to, out);
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::backend::cpu {

HWY_EXPORT(convert_values);

void convert_values(DType from, const std::byte* in, int64_t n, DType to, std::byte* out) {
  if (from == to)
    std::memcpy(out, in, static_cast<size_t>(n * dtype_bytes(to)));
  else
    HWY_DYNAMIC_DISPATCH(convert_values)(from, in, n, to, out);
}

void cast(Stream&, const Tensor& in, Tensor& out) {
  for (const DType t : {in.dtype(), out.dtype()})
    require(t == kF32 || t == kBF16 || t == kF16, "cast", "expected f32, f16 or bf16, got {}", dtype_name(t));
  require(in.numel() == out.numel(), "cast", "{} values into {}", in.shape(), out.shape());
  const int64_t from = dtype_bytes(in.dtype()), to = dtype_bytes(out.dtype());
  parallel_for(in.numel(), 1 << 16, [&](int64_t begin, int64_t end) {
    convert_values(in.dtype(), in.raw() + begin * from, end - begin, out.dtype(), out.raw() + begin * to);
  });
}

}  // namespace nibble::backend::cpu
#endif  // HWY_ONCE
