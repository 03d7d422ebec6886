// Products with few rows, straight from a weight's stored form: generation reads every weight once per token,
// so bytes are the limit and nothing is decoded to memory.
#pragma once
#include <span>
#include <unordered_map>
#include <utility>

#include "backend/kernel_slot.h"
#include "quant/weight.h"

namespace nibble::backend {

// y[t, :] = W · x[t, :] for t < rows(x), accumulated in f32 in a fixed order; x F32 or BF16 [t, in], y F32 or
// BF16 [t, out], t <= kMatvecRows. Works for every format (dense, code book with or without double
// quantization, int8, GGUF). Several weights that read the same x (q, k and v) are one loop over all their
// rows; each y is what it would be alone.
inline constexpr int64_t kMatvecRows = 16;
struct Matvec {
  const quant::Weight* w;
  Tensor y;
};
inline KernelSlot<void(Stream&, const Tensor& x, std::span<Matvec> products)> weight_matvec{"weight_matvec"};

// For generation from a GGUF file's own blocks (Q4_0, Q4_1, Q4_K, Q8_0): the same products for any number of
// rows of x, BF16, rounded to 8 bits: each run of 32 is scaled by its largest magnitude, as llama.cpp has it.
// Sums are exact within a run. A row's result does not depend on the others.
bool has_rounded_product(const quant::Weight& w);
// It reads the rows of a weight in groups, `rows` of them side by side in their logical order: a copy of the
// stored blocks, of their size (backend/cpu/row_groups.h).
struct RowGroups {
  Tensor bytes;  // U8
  int64_t rows = 0;
};
inline KernelSlot<void(Stream&, const quant::Weight& w, RowGroups& groups)> group_rows{"group_rows"};
struct RoundedMatvec {
  const quant::Weight* w;
  const RowGroups* groups;
  Tensor y;
};
inline KernelSlot<void(Stream&, const Tensor& x, std::span<RoundedMatvec> products)> rounded_product{
    "rounded_product"};

// The groups of weights, each made when it is first asked for. The weights outlive them.
class GroupedWeights {
 public:
  const RowGroups& of(Stream& stream, const quant::Weight& w) {
    const auto known = groups_.find(&w);
    if (known != groups_.end()) return known->second;
    RowGroups groups;
    group_rows(stream, w, groups);
    return groups_.emplace(&w, std::move(groups)).first->second;
  }

 private:
  std::unordered_map<const quant::Weight*, RowGroups> groups_;
};

}  // namespace nibble::backend
