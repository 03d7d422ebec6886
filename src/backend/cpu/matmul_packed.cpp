// Products by packed panels (Goto & van de Geijn 2008): B is packed once for all threads, rows of A are
// divided among them. With few rows the columns are divided instead and each thread packs its own.
//
// k counts steps (gemm_step.h): with pairs every offset along k is half of what it is in values, and operands
// are read as the floats that two of their neighbours make. Integers store a row of scales after every run of
// steps (stored_steps).
#include "backend/cpu/local_buffer.h"
#include "backend/cpu/matmul.h"
#include "backend/cpu/simd_targets.h"
#include "base/parallel.h"

#include <hwy/cache_control.h>

#ifndef NIBBLE_CPU_MATMUL_PACKED
#define NIBBLE_CPU_MATMUL_PACKED
namespace nibble::backend::cpu {
// Columns that a tile sums at a time: a multiple of every panel width.
inline constexpr int64_t kChunk = 512;
inline constexpr int64_t kFewColumns = 32;  // up to here packing A costs more than it saves
// A low-rank pair in the form in which tiles read it.
struct PackedPair {
  const float* p = nullptr;    // panels of p over the present k, or null: t is complete
  Step t_step = Step::kFloat;  // of x · p
  const float* q = nullptr;    // panels of q over the present columns, or null: k goes on
  Step q_step = Step::kFloat;  // of t · q
  float* t = nullptr;          // f32 [m, ld]
  int64_t ld = 0;
  int64_t steps = 0;  // of r
  // Beside a product of bytes t is made from A as it lies, over all of k at once.
  int64_t t_steps = 0, t_block = 0;  // of that k, and how many of them are one block
};
}  // namespace nibble::backend::cpu
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/matmul_packed.cpp"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway wants it:
#include "backend/cpu/bytes-inl.h"
#include "backend/cpu/fixed_point-inl.h"
#include "backend/cpu/gemm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace nibble::backend::cpu::HWY_NAMESPACE {

template <class T>
void pack_columns(const Matrix& b, int64_t k0, int64_t k, int64_t column, int64_t columns, float* to) {
  const int64_t width = gemm_panel_width();
  const T* from = static_cast<const T*>(b.data);
  if (!b.transposed) return pack_panels(from + k0 * b.ld + column, b.ld, k, columns, to, k * width);
  for (int64_t j = 0; j < columns; j += width, to += k * width)
    pack_panel_transposed(from + (column + j) * b.ld + k0, b.ld, k, columns - j, to);
}

template <class T>
void pack_fixed_columns(const Matrix& b, int64_t k0, int64_t k, int64_t column, int64_t columns, float* to) {
  const T* from = static_cast<const T*>(b.data);
  if (!b.transposed)
    return pack_fixed(from + 2 * k0 * b.ld + column, b.absmax == nullptr ? nullptr : b.absmax + 2 * k0, b.ld,
                      k, columns, to);
  const int64_t width = gemm_panel_width();
  for (int64_t j = 0; j < columns; j += width, to += stored_steps(Step::kFixedPoint, k) * width) {
    const T* rows = from + (column + j) * b.ld + 2 * k0;
    if constexpr (std::is_same_v<T, int8_t>)
      pack_fixed_transposed(rows, b.absmax + column + j, b.ld, k, columns - j, to);
    else
      pack_fixed_transposed(rows, b.ld, k, columns - j, to);
  }
}

// Bf16 values as the floats that pairs of them make.
Matrix paired(Matrix m) {
  m.dtype = kF32;
  m.ld /= 2;
  return m;
}

// B steps [k0, k0 + k), columns [column, column + columns) as panels at `to`.
void pack_b(const Matrix& b, Step step, int64_t k0, int64_t k, int64_t column, int64_t columns, float* to) {
  const int64_t width = gemm_panel_width();
  if (of_bytes(step)) {
    const auto* from = static_cast<const int8_t*>(b.data);
    if (!b.transposed) return pack_bytes(from + 4 * k0 * b.ld + column, b.ld, k, columns, to);
    for (int64_t j = 0; j < columns; j += width, to += stored_steps(step, k) * width)
      pack_bytes_transposed(from + (column + j) * b.ld + 4 * k0, b.ld, k, columns - j, to);
    return;
  }
  if (step == Step::kFixedPoint) {
    if (b.dtype == kF32) return pack_fixed_columns<float>(b, k0, k, column, columns, to);
    if (b.dtype == kBF16) return pack_fixed_columns<BFloat16>(b, k0, k, column, columns, to);
    return pack_fixed_columns<int8_t>(b, k0, k, column, columns, to);
  }
  if (step != Step::kFloat) {
    if (b.transposed) return pack_columns<float>(paired(b), k0, k, column, columns, to);
    const auto* from = static_cast<const BFloat16*>(b.data) + 2 * k0 * b.ld + column;
    return pack_panels_of_pairs(from, b.ld, 2 * k, columns, to, k * width);
  }
  if (b.dtype == kF32) return pack_columns<float>(b, k0, k, column, columns, to);
  pack_columns<BFloat16>(b, k0, k, column, columns, to);
}

constexpr int64_t kPastCaches = 4 << 20;

int64_t panel_width() { return gemm_panel_width(); }
bool can_hold_pairs() { return HWY_TARGET == HWY_AVX3; }

// Rows of A that are packed side by side.
HWY_INLINE int64_t grouped_rows(Step step) { return step == Step::kFixedPoint ? kFixedRows : kGemmRows; }
HWY_INLINE int64_t padded_rows(Step step, int64_t rows) {
  return (rows + grouped_rows(step) - 1) / grouped_rows(step) * grouped_rows(step);
}

// The rows of A that one tile needs, as f32: read as they lie, widened, or packed by groups within each block
// of k.
struct TileOfA {
  const float* data;
  int64_t ld;  // 0: packed
};

template <class T>
TileOfA tile_of_a(const Matrix& a, int64_t row, int64_t rows, int64_t k0, int64_t k, int64_t block,
                  int64_t columns) {
  const T* from = static_cast<const T*>(a.data) + (a.transposed ? k0 * a.ld + row : row * a.ld + k0);
  if (!a.transposed && columns <= kFewColumns) {
    if constexpr (std::is_same_v<T, float>) return {from, a.ld};
    const hn::ScalableTag<float> d;
    const int64_t ld = (k + 15) / 16 * 16 + 16;
    float* to = local_buffer(LocalSlot::kA, rows * ld);
    for (int64_t r = 0; r < rows; ++r)
      for_vectors(d, 0, k,
                  [&](const auto& at) HWY_ATTR { at.store(d, at.load(d, from + r * a.ld), to + r * ld); });
    return {to, ld};
  }
  const int64_t padded = padded_rows(Step::kFloat, rows);
  float* to = local_buffer(LocalSlot::kA, padded * k + 4);
  for (int64_t p = 0; p < k; p += block) {
    const int64_t depth = std::min(block, k - p);
    for (int64_t i = 0; i < rows; i += kGemmRows) {
      const int64_t count = std::min(kGemmRows, rows - i);
      if (a.transposed)
        pack_rows_transposed(from + p * a.ld + i, a.ld, depth, count, to + padded * p + i * depth);
      else
        pack_rows(from + i * a.ld + p, a.ld, depth, count, to + padded * p + i * depth);
    }
  }
  return {to, 0};
}

// Rows of a f32 A rounded to bf16, two side by side in each float.
template <Step kStep>
Matrix rounded_rows(const Matrix& a, int64_t row, int64_t rows, int64_t k0, int64_t k) {
  const GemmTag d;
  float* to = local_buffer(LocalSlot::kD, rows * k);
  const auto* from = static_cast<const float*>(a.data) + row * a.ld + 2 * k0;
  for (int64_t r = 0; r < rows; ++r)
    for_vectors(d, 0, 2 * k, [&](const auto& at) HWY_ATTR {
      at.store(d, at.load(d, from + r * a.ld), operand_over<kStep>(to + r * k));
    });
  return {to, kF32, k, false};
}

template <class T>
void pack_fixed_tile(const Matrix& a, int64_t row, int64_t rows, int64_t k0, int64_t k, int64_t block,
                     float* to) {
  const T* from = static_cast<const T*>(a.data) + row * a.ld + 2 * k0;
  for (int64_t p = 0; p < k; p += block) {
    const int64_t depth = std::min(block, k - p);
    for (int64_t i = 0; i < rows; i += kFixedRows, to += kFixedRows * stored_steps(Step::kFixedPoint, depth))
      pack_fixed_rows(from + i * a.ld + 2 * p, a.ld, depth, std::min(kFixedRows, rows - i), to);
  }
}
// A tile of A in fixed point at `slot`, sixes of each block of k side by side.
const float* fixed_tile(LocalSlot slot, const Matrix& a, int64_t row, int64_t rows, int64_t k0, int64_t k,
                        int64_t block) {
  const int64_t padded = padded_rows(Step::kFixedPoint, rows);
  float* to = local_buffer(slot, padded * stored_steps(Step::kFixedPoint, k) + 4);
  if (a.dtype == kF32)
    pack_fixed_tile<float>(a, row, rows, k0, k, block, to);
  else
    pack_fixed_tile<BFloat16>(a, row, rows, k0, k, block, to);
  return to;
}

template <class T>
const float* byte_tile(const Product& p, int64_t row, int64_t rows, int64_t k0, int64_t k, int64_t block) {
  float* to = local_buffer(LocalSlot::kA, padded_rows(p.step, rows) * stored_steps(p.step, k) + 4);
  const float *first = to, *factors = p.b.transposed ? nullptr : p.b.absmax + 4 * k0;
  const T* from = static_cast<const T*>(p.a.data) + row * p.a.ld + 4 * k0;
  for (int64_t at = 0; at < k; at += block) {
    const int64_t depth = std::min(block, k - at);
    for (int64_t i = 0; i < rows; i += kGemmRows, to += kGemmRows * stored_steps(p.step, depth))
      pack_byte_rows(from + i * p.a.ld + 4 * at, factors == nullptr ? nullptr : factors + 4 * at, p.a.ld,
                     depth, std::min(kGemmRows, rows - i), to);
  }
  return first;
}

// `step`: the product's, or that of its t.
TileOfA tile_of_step(const Product& p, Step step, int64_t row, int64_t rows, int64_t k0, int64_t k,
                     int64_t block, int64_t columns) {
  if (of_bytes(step))
    return {p.a.dtype == kF32 ? byte_tile<float>(p, row, rows, k0, k, block)
                              : byte_tile<BFloat16>(p, row, rows, k0, k, block),
            0};
  if (step == Step::kFixedPoint) return {fixed_tile(LocalSlot::kA, p.a, row, rows, k0, k, block), 0};
  if (step == Step::kFloat) {
    if (p.a.dtype == kF32) return tile_of_a<float>(p.a, row, rows, k0, k, block, columns);
    return tile_of_a<BFloat16>(p.a, row, rows, k0, k, block, columns);
  }
  if (p.a.dtype == kF32) {
    const Matrix rounded = step == Step::kPair ? rounded_rows<Step::kPair>(p.a, row, rows, k0, k)
                                               : rounded_rows<Step::kEmulatedPair>(p.a, row, rows, k0, k);
    return tile_of_a<float>(rounded, 0, rows, 0, k, block, columns);
  }
  return tile_of_a<float>(paired(p.a), row, rows, k0, k, block, columns);
}

// gemm_block with the product's kind of step (floats and pairs of bf16).
template <RowsOfA kRows>
void block_of(Step step, int64_t rows, int64_t columns, int64_t k, const float* a, int64_t lda,
              const float* packed, int64_t panel_stride, const GemmResult& out) {
#if HWY_TARGET == HWY_AVX3
  if (step == Step::kPair)
    return gemm_block<kRows, Step::kPair>(rows, columns, k, a, lda, packed, panel_stride, out);
#endif
  if (step == Step::kFloat)
    return gemm_block<kRows, Step::kFloat>(rows, columns, k, a, lda, packed, panel_stride, out);
  gemm_block<kRows, Step::kEmulatedPair>(rows, columns, k, a, lda, packed, panel_stride, out);
}
// The same of bytes, A packed; the columns' part of the scales comes from `absmax`, or is in A. They give f32
// sums alone.
void block_of_bytes(Step step, int64_t rows, int64_t columns, int64_t depth, const float* absmax,
                    const float* a, const float* packed, int64_t panel_stride, const GemmResult& out) {
  const int64_t next = kGemmRows * stored_steps(step, depth);
#if HWY_TARGET == HWY_AVX3
  if (step == Step::kByte)
    return byte_block<Step::kByte>(rows, columns, depth, out.alpha, absmax, a, next, packed, panel_stride,
                                   out.put, out.c, out.ld);
#endif
  byte_block<Step::kEmulatedByte>(rows, columns, depth, out.alpha, absmax, a, next, packed, panel_stride,
                                  out.put, out.c, out.ld);
}
// Any other kind of step, A packed: `depth` steps of its groups and of the panels. Fixed point gives f32 sums
// alone.
void packed_block(Step step, int64_t rows, int64_t columns, int64_t depth, const float* a,
                  const float* packed, int64_t panel_stride, const GemmResult& out) {
  const int64_t next = grouped_rows(step) * stored_steps(step, depth);
  if (step == Step::kFixedPoint)
    return fixed_block(rows, columns, depth, out.alpha, a, next, packed, panel_stride, out.put, out.c,
                       out.ld);
  block_of<RowsOfA::kPacked>(step, rows, columns, depth, a, next, packed, panel_stride, out);
}

void round_rows(const float* from, int64_t ld, int64_t rows, int64_t columns, BFloat16* to, int64_t ld_to,
                bool add) {
  const hn::ScalableTag<float> d;
  for (int64_t r = 0; r < rows; ++r, from += ld, to += ld_to)
    for_vectors(d, 0, columns, [&](const auto& at) HWY_ATTR {
      const auto v = at.load(d, from);
      at.store(d, add ? hn::Add(at.load(d, to), v) : v, to);
    });
}

// Rows of t over k steps from a tile of A; rounded and stored when k ends.
void tile_of_t(const Product& p, const PackedPair& pair, const TileOfA& a, int64_t row, int64_t rows,
               bool first, bool last, int64_t k, int64_t block) {
  const LowRank& low = *p.low_rank;
  const Step step = pair.t_step;
  const int64_t width = gemm_panel_width(), padded = padded_rows(step, rows);
  float* t = pair.t + row * pair.ld;
  for (int64_t at = 0; at < k; at += block) {
    const int64_t depth = std::min(block, k - at);
    const int64_t before = stored_steps(step, at), stride = stored_steps(step, k) * width;
    const float* panels = pair.p + before * width;
    const GemmResult out{
        .alpha = low.alpha, .put = first && at == 0 ? Put::kSet : Put::kAdd, .c = t, .ld = pair.ld};
    if (a.ld == 0)
      packed_block(step, rows, low.r, depth, a.data + padded * before, panels, stride, out);
    else
      block_of<RowsOfA::kAsStored>(step, rows, low.r, depth, a.data + at, a.ld, panels, stride, out);
  }
  if (!last) return;
  const hn::ScalableTag<float> d;
  const auto store = [&](auto* to) HWY_ATTR {
    for (int64_t r = 0; r < rows; ++r, t += pair.ld, to += low.r)
      for_vectors(d, 0, low.r, [&](const auto& v) HWY_ATTR {
        v.store(d, v.load(d, t), to);
        v.store(d, v.load(d, to), t);
      });
  };
  if (low.t_dtype == kF32)
    store(static_cast<float*>(low.t) + row * low.r);
  else
    store(static_cast<BFloat16*>(low.t) + row * low.r);
}

// Rows of t as the left side of t · q.
const float* packed_t(const Product& p, const PackedPair& pair, int64_t row, int64_t rows) {
  const LowRank& low = *p.low_rank;
  if (pair.q_step == Step::kFixedPoint)
    return fixed_tile(LocalSlot::kD, {low.t, low.t_dtype, low.r}, row, rows, 0, pair.steps, pair.steps);
  const bool floats = pair.q_step == Step::kFloat;
  const int64_t ld = floats ? pair.ld : pair.steps;
  const float* t = (floats ? pair.t : static_cast<const float*>(low.t)) + row * ld;
  float* to = local_buffer(LocalSlot::kD, padded_rows(pair.q_step, rows) * pair.steps + 4);
  for (int64_t i = 0; i < rows; i += kGemmRows)
    pack_rows(t + i * ld, ld, pair.steps, std::min(kGemmRows, rows - i), to + i * pair.steps);
  return to;
}

// C[row.., column..] of one tile over [k0, k0 + k). packed: panels of B's columns, or null: packed here.
// wide: f32 sums of C over several calls (rows ld_wide apart), or null when this call covers all of k.
void tile(const Product& p, int64_t row, int64_t rows, int64_t column, int64_t columns, int64_t k0, int64_t k,
          int64_t block, const float* packed, float* wide, int64_t ld_wide, const PackedPair& pair) {
  const int64_t width = gemm_panel_width(), padded = padded_rows(p.step, rows);
  const bool direct = p.c_dtype == kF32, first = k0 == 0, last = k0 + k == p.steps();
  // tile_of_t reads A packed.
  const int64_t readers = p.low_rank == nullptr ? columns : columns + kFewColumns;
  // Where B is packed by the block so is A: of all of a long k it would take this thread megabytes.
  const bool by_block = packed == nullptr, bytes = of_bytes(p.step);
  if (bytes && pair.p != nullptr) {  // before the tile of bytes takes the same memory
    const int64_t r = p.low_rank->r;
    tile_of_t(p, pair, tile_of_step(p, pair.t_step, row, rows, 0, pair.t_steps, pair.t_block, r), row, rows,
              true, true, pair.t_steps, pair.t_block);
  }
  TileOfA a = by_block ? TileOfA{} : tile_of_step(p, p.step, row, rows, k0, k, block, readers);
  if (!bytes && pair.p != nullptr) tile_of_t(p, pair, a, row, rows, first, last, k, block);
  // Written once, and larger than the caches: nothing is gained by reading its lines in first.
  const bool past_caches = direct && first && last && block >= k && p.low_rank == nullptr &&
                           p.m * p.n >= kPastCaches && p.ldc % 16 == 0 && column % 16 == 0 &&
                           columns % 16 == 0 && reinterpret_cast<uintptr_t>(p.c) % 64 == 0;
  const float* t = pair.q != nullptr ? packed_t(p, pair, row, rows) : nullptr;
  const int64_t t_length = stored_steps(pair.q_step, pair.steps), t_stride = t_length * width;
  // Floats and pairs of bf16 need no pass of their own for t · q and for rounding C.
  const auto rounds = [](Step step) { return step != Step::kFixedPoint && !of_bytes(step); };
  const bool finishes = rounds(p.step);
  const auto round_to_c = [&](GemmResult& out, int64_t offset) {
    out.rounded = static_cast<BFloat16*>(p.c) + offset;
    out.ld_rounded = p.ldc;
    out.add_rounded = p.accumulate;
  };
  // Some columns at a time, so that their sums stay in the second-level cache over all blocks of k.
  for (int64_t j = 0; j < columns; j += kChunk) {
    const int64_t count = std::min(kChunk, columns - j);
    const int64_t offset = row * p.ldc + column + j;
    float* c = nullptr;  // sums, where a single block does not round them at once
    int64_t ldc = kChunk + 16;
    if (direct || wide != nullptr) {
      c = direct ? static_cast<float*>(p.c) + offset : wide + j;
      ldc = direct ? p.ldc : ld_wide;
    } else if (!finishes || k > block) {
      c = local_buffer(LocalSlot::kC, rows * ldc);
    }
    for (int64_t at = 0; at < k; at += block) {
      const int64_t depth = std::min(block, k - at);
      const float *panels = nullptr, *rows_of_a = nullptr;
      int64_t stride = stored_steps(p.step, by_block ? depth : k) * width;
      if (by_block) {
        a = tile_of_step(p, p.step, row, rows, k0 + at, depth, depth, readers);
        rows_of_a = a.data;
        float* own = local_buffer(LocalSlot::kB, (count + width - 1) / width * stride);
        pack_b(p.b, p.step, k0 + at, depth, column + j, count, own);
        panels = own;
      } else {
        const int64_t before = stored_steps(p.step, at);
        rows_of_a = a.data + (a.ld == 0 ? padded * before : at);
        panels = packed + j * stored_steps(p.step, k) + before * width;
      }
      const bool add = !(first && at == 0) || (direct && p.accumulate);
      GemmResult out{.alpha = p.alpha,
                     .put = add           ? Put::kAdd
                            : past_caches ? Put::kStream
                                          : Put::kSet,
                     .c = c,
                     .ld = ldc};
      if (finishes && last && at + depth == k) {
        if (t != nullptr && p.low_rank->beta != 0) {
          out.a = t;
          out.panels = pair.q + j * t_length;
          out.next_rows = kGemmRows * t_length;
          out.next_panel = t_stride;
          out.steps = pair.steps;
          out.before = p.alpha / p.low_rank->beta;
          out.alpha = p.low_rank->beta;
        }
        if (!direct) round_to_c(out, offset);
      }
      if (bytes)
        block_of_bytes(p.step, rows, count, depth, p.b.transposed ? p.b.absmax + column + j : nullptr,
                       rows_of_a, panels, stride, out);
      else if (a.ld == 0)
        packed_block(p.step, rows, count, depth, rows_of_a, panels, stride, out);
      else
        block_of<RowsOfA::kAsStored>(p.step, rows, count, depth, rows_of_a, a.ld, panels, stride, out);
    }
    if (finishes) continue;
    if (t != nullptr) {
      GemmResult out{.alpha = p.low_rank->beta, .put = Put::kAdd, .c = c, .ld = ldc};
      if (!direct && rounds(pair.q_step)) round_to_c(out, offset);
      packed_block(pair.q_step, rows, count, pair.steps, t, pair.q + j * t_length, t_stride, out);
      if (out.rounded != nullptr) continue;
    }
    if (!direct && last)
      round_rows(c, ldc, rows, count, static_cast<BFloat16*>(p.c) + offset, p.ldc, p.accumulate);
  }
  if (past_caches) hwy::FlushStream();
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::backend::cpu {
HWY_EXPORT(can_hold_pairs);
HWY_EXPORT(pack_b);
HWY_EXPORT(panel_width);
HWY_EXPORT(tile);

namespace {

std::optional<Step> forced_step, forced_byte_step;

constexpr int64_t kBlock =
    384;  // k of one pass: a panel of B and six rows of A stay in the first-level cache
constexpr int64_t kFixedBlock = 288;  // with its scales, and less of the cache to spare
constexpr int64_t kByteBlock = 256;
constexpr int64_t kTileRows = 96;     // rows of A of one tile stay in the second-level cache
constexpr int64_t kRowGroup = 12;     // whole groups of rows of every instruction set
constexpr int64_t kSlice = 2048;      // columns of B packed at a time
constexpr int64_t kPacked = 2 << 20;  // values of B packed at a time: 8 MB

int64_t divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// k in equal blocks of whole runs. Depends on k alone: it decides the order of the sums.
int64_t block_of_k(Step step, int64_t k) {
  const int64_t run = std::max<int64_t>(8, steps_of_run(step)), most = of_bytes(step) ? kByteBlock
                                                                       : step == Step::kFixedPoint
                                                                           ? kFixedBlock
                                                                           : kBlock;
  return std::max(run, divide(divide(k, divide(k, most)), run) * run);
}

// As many tiles of rows as keep every thread busy to the end.
int64_t tiles_of_rows(int64_t m) {
  const int64_t groups = divide(m, kRowGroup), share = divide(groups, threads());
  return std::min(groups, threads() * divide(share * kRowGroup, kTileRows));
}

// Columns of a thread's part where rows are few.
int64_t few_columns(int64_t n, int64_t width) {
  return std::clamp<int64_t>(divide(divide(n, 2 * threads()), width) * width, width, kChunk);
}

// Can A, and what stands beside it on the right, be multiplied as pairs? Of a product of bytes: its t.
bool can_pair(const Product& p) {
  const auto even = [](const Matrix& m) { return m.dtype == kBF16 && (!m.transposed || m.ld % 2 == 0); };
  return p.m > kFewRows && p.k % 2 == 0 && !p.a.transposed && (p.a.dtype == kF32 || p.a.ld % 2 == 0) &&
         (of_bytes(p.step) || even(p.b)) &&
         (p.low_rank == nullptr || (even(p.low_rank->p) && even(p.low_rank->q) && p.low_rank->r % 2 == 0 &&
                                    p.low_rank->t_dtype == kBF16));
}

}  // namespace

Step bf16_step() {
  if (forced_step) return *forced_step;
#if defined(__x86_64__)
  static const bool has = __builtin_cpu_supports("avx512bf16") != 0;
  if (has && HWY_DYNAMIC_DISPATCH(can_hold_pairs)()) return Step::kPair;
#endif
  return Step::kFloat;
}
Step byte_step() {
  if (forced_byte_step) return *forced_byte_step;
#if defined(__x86_64__)
  static const bool has = __builtin_cpu_supports("avx512vnni") != 0;
  if (has && HWY_DYNAMIC_DISPATCH(can_hold_pairs)()) return Step::kByte;
#endif
  return Step::kEmulatedByte;
}
void force_bf16_step(std::optional<Step> step) { forced_step = step; }
void force_byte_step(std::optional<Step> step) { forced_byte_step = step; }

Step step_of_product(const Product& p) {
  return p.step == Step::kFloat && can_pair(p) ? bf16_step() : p.step;
}

Packing packing_of(const Product& p) {
  const int64_t width = HWY_DYNAMIC_DISPATCH(panel_width)(), depth = p.steps();
  Packing f;
  f.block = block_of_k(p.step, depth);
  f.slice = std::min(divide(p.n, width) * width, kSlice);
  // Slabs of k where B is too large to be packed whole; sums in between are f32.
  f.slab = depth;
  if (f.slab * f.slice > kPacked) f.slab = std::max<int64_t>(1, kPacked / f.slice / f.block) * f.block;
  if (f.slab < depth && p.c_dtype != kF32) f.sums = p.m * f.slice;
  const int64_t r = p.low_rank == nullptr ? 0 : p.low_rank->r;
  f.ld_t = divide(r, width) * width;
  const bool bytes = of_bytes(p.step);
  f.t_step = !bytes ? p.step : can_pair(p) ? bf16_step() : Step::kFloat;
  f.t_steps = p.k / values_of(f.t_step);
  f.t_block = block_of_k(f.t_step, f.t_steps);
  f.q_step = f.t_step == Step::kFixedPoint && r % 2 != 0 ? Step::kFloat : f.t_step;
  f.q_steps = r / values_of(f.q_step);
  const int64_t k = stored_steps(p.step, f.slab);
  f.b = f.slice * k;
  f.q = f.slice * stored_steps(f.q_step, f.q_steps);
  f.p = f.ld_t * (bytes ? f.t_steps : k);
  f.t = f.ld_t * p.m;
  return f;
}

LocalCounts local_counts_of(const Product& p) {
  const Packing f = packing_of(p);
  const bool few = p.m <= kFewRows,
             sums = p.c_dtype != kF32 && (few || f.sums == 0) &&
                    (p.step == Step::kFixedPoint || of_bytes(p.step) || p.steps() > f.block);
  const int64_t rows = divide(std::min(p.m, kTileRows), kRowGroup) * kRowGroup,
                k = stored_steps(p.step, few ? std::min(f.block, p.steps()) : f.slab);
  LocalCounts counts{};
  const auto of = [&](LocalSlot slot) -> int64_t& { return counts[static_cast<size_t>(slot)]; };
  of(LocalSlot::kA) = rows * (k + 32);  // as it lies, rows are padded
  const bool t_apart = of_bytes(p.step) && !few && f.ld_t > 0;
  if (t_apart && (p.low_rank->r > kFewColumns || f.t_step == Step::kFloat))
    of(LocalSlot::kA) = std::max(of(LocalSlot::kA), rows * (f.t_steps + 32));
  if (few) of(LocalSlot::kB) = few_columns(p.n, HWY_DYNAMIC_DISPATCH(panel_width)()) * k;
  if (sums) of(LocalSlot::kC) = rows * (kChunk + 16);
  const bool rounds_a = p.a.dtype == kF32 && (f.t_step == Step::kPair || f.t_step == Step::kEmulatedPair);
  if (rounds_a && (t_apart || !of_bytes(p.step))) of(LocalSlot::kD) = rows * (t_apart ? f.t_steps : f.slab);
  if (p.low_rank != nullptr)
    of(LocalSlot::kD) = std::max(of(LocalSlot::kD), rows * stored_steps(f.q_step, f.q_steps) + 4);
  return counts;
}

void multiply_packed(Stream& stream, Product p) {
  p.step = step_of_product(p);
  const int64_t width = HWY_DYNAMIC_DISPATCH(panel_width)(), depth = p.steps();
  const bool bytes = of_bytes(p.step);
  if (p.m <= kFewRows) {
    parallel_for(p.n, few_columns(p.n, width), [&](int64_t begin, int64_t end) {
      HWY_DYNAMIC_DISPATCH(tile)
      (p, 0, p.m, begin, end - begin, 0, depth, block_of_k(p.step, depth), nullptr, nullptr, 0, {});
    });
    return;
  }
  const Packing f = packing_of(p);
  const auto room = [&](int slot, int64_t floats) {
    return reinterpret_cast<float*>(stream.scratch(slot, static_cast<size_t>(floats) * sizeof(float)));
  };
  float* sums = f.sums > 0 ? room(Stream::kPartialSlot, f.sums) : nullptr;
  float* packed = room(Stream::kKernelSlot, f.b + f.q + f.p + f.t);
  float *packed_q = packed + f.b, *packed_p = packed_q + f.q;
  PackedPair pair{.t_step = f.t_step,
                  .q_step = f.q_step,
                  .t = packed_p + f.p,
                  .ld = f.ld_t,
                  .steps = f.q_steps,
                  .t_steps = f.t_steps,
                  .t_block = f.t_block};
  const int64_t tiles = tiles_of_rows(p.m), groups = divide(p.m, kRowGroup);
  for (int64_t column = 0; column < p.n; column += f.slice) {
    const int64_t columns = std::min(f.slice, p.n - column);
    for (int64_t k0 = 0; k0 < depth; k0 += f.slab) {
      const int64_t k = std::min(f.slab, depth - k0);
      parallel_for(columns, 2 * width, [&](int64_t begin, int64_t end) {
        HWY_DYNAMIC_DISPATCH(pack_b)
        (p.b, p.step, k0, k, column + begin, end - begin, packed + begin * stored_steps(p.step, k));
      });
      if (p.low_rank != nullptr) {
        pair.p = column == 0 && (!bytes || k0 == 0) ? packed_p : nullptr;
        pair.q = k0 + k == depth ? packed_q : nullptr;
        if (pair.p != nullptr) HWY_DYNAMIC_DISPATCH(pack_b)
        (p.low_rank->p, pair.t_step, k0, bytes ? pair.t_steps : k, 0, p.low_rank->r, packed_p);
        if (pair.q != nullptr)
          HWY_DYNAMIC_DISPATCH(pack_b)(p.low_rank->q, pair.q_step, 0, pair.steps, column, columns, packed_q);
      }
      parallel_for(tiles, 1, [&](int64_t i, int64_t) {
        const int64_t begin = i * groups / tiles * kRowGroup,
                      end = std::min(p.m, (i + 1) * groups / tiles * kRowGroup);
        HWY_DYNAMIC_DISPATCH(tile)
        (p, begin, end - begin, column, columns, k0, k, f.block, packed,
         sums != nullptr ? sums + begin * f.slice : nullptr, f.slice, pair);
      });
    }
  }
}

}  // namespace nibble::backend::cpu
#endif  // HWY_ONCE
