// G = alpha · Sᵀ · X with few columns of S: S is packed once, columns of X are divided among threads, and
// each packs its own a block of rows at a time.
#include "backend/cpu/kernels.h"
#include "backend/cpu/local_buffer.h"
#include "backend/cpu/simd_targets.h"
#include "base/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/thin_gradient.cpp"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway wants it:
#include "backend/cpu/gemm-inl.h"

#ifndef NIBBLE_CPU_THIN_GRADIENT
#define NIBBLE_CPU_THIN_GRADIENT
namespace nibble::backend::cpu {
inline constexpr int64_t kThinBlock =
    256;  // rows of S and X of one pass: a panel of X stays in the first-level cache
inline constexpr int64_t kThinColumns = 96;  // of X at a time: a multiple of every panel width
}  // namespace nibble::backend::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

int64_t thin_padded(int64_t r) { return (r + kGemmRows - 1) / kGemmRows * kGemmRows; }

// Rows [begin, end) of S, whole blocks: each block as its groups of columns.
template <class T, Step kStep>
void pack_typed(const Tensor& s, int64_t begin, int64_t end, float* to) {
  const int64_t r = s.shape()[1], padded = thin_padded(r);
  for (int64_t t = begin; t < end; t += kThinBlock) {
    const int64_t depth = std::min(kThinBlock, end - t);
    for (int64_t i = 0; i < r; i += kGemmRows)
      pack_rows_transposed_for<kStep>(s.data<T>() + t * r + i, r, depth, std::min(kGemmRows, r - i),
                                      to + steps_of<kStep>(t) * padded + i * steps_of<kStep>(depth));
  }
}
void pack_thin(const Tensor& s, int64_t begin, int64_t end, Step step, float* to) {
  with_step(s.dtype(), step,
            [&](auto type, auto by) { pack_typed<decltype(type), by()>(s, begin, end, to); });
}

void write_thin(const float* sums, int64_t r, int64_t columns, int64_t column, const ThinArgs& args,
                const Tensor& g) {
  const int64_t n = args.transpose_out ? g.shape()[0] : g.shape()[1];
  float* out = g.data<float>();
  for (int64_t i = 0; i < r; ++i)
    for (int64_t j = 0; j < columns; ++j) {
      float& to = args.transpose_out ? out[(column + j) * r + i] : out[i * n + column + j];
      to = args.accumulate ? to + sums[i * kThinColumns + j] : sums[i * kThinColumns + j];
    }
}

template <class T, Step kStep>
void columns_typed(const float* packed, const Tensor& x, int64_t r, int64_t column, int64_t columns,
                   const ThinArgs& args, const Tensor& g) {
  const int64_t rows = x.shape()[0], n = x.shape()[1], padded = thin_padded(r), width = gemm_panel_width();
  float* sums = local_buffer(LocalSlot::kC, r * kThinColumns);
  float* panels = local_buffer(LocalSlot::kB, kThinBlock * kThinColumns);
  for (int64_t t = 0; t < rows; t += kThinBlock) {
    const int64_t depth = std::min(kThinBlock, rows - t);
    const int64_t steps = steps_of<kStep>(depth);
    pack_panels_for<kStep>(x.data<T>() + t * n + column, n, depth, columns, panels, steps * width);
    gemm_block<RowsOfA::kPacked, kStep>(r, columns, steps, args.alpha, packed + steps_of<kStep>(t) * padded,
                                        kGemmRows * steps, panels, steps * width,
                                        t > 0 ? Put::kAdd : Put::kSet, sums, kThinColumns);
  }
  write_thin(sums, r, columns, column, args, g);
}
void thin_columns(const float* packed, const Tensor& x, int64_t r, int64_t column, int64_t columns,
                  const ThinArgs& args, Step step, const Tensor& g) {
  with_step(x.dtype(), step, [&](auto type, auto by) {
    columns_typed<decltype(type), by()>(packed, x, r, column, columns, args, g);
  });
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::backend::cpu {
HWY_EXPORT(thin_padded);
HWY_EXPORT(pack_thin);
HWY_EXPORT(thin_columns);

void thin_gradient(Stream& stream, const Tensor& s, const Tensor& x, Tensor& g, ThinArgs args) {
  for (const Tensor* t : {&s, &x})
    require(t->dtype() == kF32 || t->dtype() == kBF16, "thin_gradient", "expected f32 or bf16, got {}",
            dtype_name(t->dtype()));
  const int64_t rows = x.shape()[0], n = x.shape()[1], r = s.shape()[1];
  if (r == 0 || n == 0) return;
  if (rows == 0) {
    if (!args.accumulate) std::fill_n(g.data<float>(), g.numel(), 0.0f);
    return;
  }
  const Step step = s.dtype() == kBF16 && x.dtype() == kBF16 ? bf16_step() : Step::kFloat;
  const int64_t floats =
      (rows + 1) * HWY_DYNAMIC_DISPATCH(thin_padded)(r) + 4;  // packing writes up to four beyond
  float* packed =
      reinterpret_cast<float*>(stream.scratch(Stream::kKernelSlot, static_cast<size_t>(floats) * 4));
  parallel_for(rows, kThinBlock, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(pack_thin)(s, begin, end, step, packed);
  });
  parallel_for(n, kThinColumns, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(thin_columns)(packed, x, r, begin, end - begin, args, step, g);
  });
}

}  // namespace nibble::backend::cpu
#endif  // HWY_ONCE
