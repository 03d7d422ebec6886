// Products by packed panels (Goto & van de Geijn 2008): B is packed once for all threads, rows of A are
// divided among them. With few rows the columns are divided instead and each thread packs its own.
#include "backend/cpu/local_buffer.h"
#include "backend/cpu/matmul.h"
#include "backend/cpu/simd_targets.h"
#include "base/parallel.h"

#ifndef NIBBLE_CPU_MATMUL_F32
#define NIBBLE_CPU_MATMUL_F32
namespace nibble::backend::cpu {
// A low-rank pair in the form in which tiles read it.
struct PackedPair {
  const float* p = nullptr;  // panels of p over the present k, or null: t is complete
  const float* q = nullptr;  // panels of q over the present columns, or null: k goes on
  float* t = nullptr;        // f32 [m, ld]
  int64_t ld = 0;
};
}  // namespace nibble::backend::cpu
#endif

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "backend/cpu/matmul_f32.cpp"
#include <hwy/foreach_target.h>
// After foreach_target, as Highway wants it:
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

// B rows [k0, k0 + k), columns [column, column + columns) as panels at `to`.
void pack_b(const Matrix& b, int64_t k0, int64_t k, int64_t column, int64_t columns, float* to) {
  if (b.dtype == kF32) return pack_columns<float>(b, k0, k, column, columns, to);
  pack_columns<BFloat16>(b, k0, k, column, columns, to);
}

constexpr int64_t kFewColumns = 32;  // up to here packing A costs more than it saves
constexpr int64_t kChunk = 512;      // a multiple of every panel width

int64_t panel_width() { return gemm_panel_width(); }

// The rows of A that one tile needs, as f32: read as they lie, widened, or packed by sixes within each block
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
  const int64_t padded = (rows + kGemmRows - 1) / kGemmRows * kGemmRows;
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

void round_rows(const float* from, int64_t ld, int64_t rows, int64_t columns, BFloat16* to, int64_t ld_to,
                bool add) {
  const hn::ScalableTag<float> d;
  for (int64_t r = 0; r < rows; ++r, from += ld, to += ld_to)
    for_vectors(d, 0, columns, [&](const auto& at) HWY_ATTR {
      const auto v = at.load(d, from);
      at.store(d, add ? hn::Add(at.load(d, to), v) : v, to);
    });
}

// Rows of t over [k0, k0 + k) from a packed tile of A; rounded and stored when k ends.
void tile_of_t(const Product& p, const PackedPair& pair, const float* a, int64_t row, int64_t rows,
               bool first, bool last, int64_t k, int64_t block) {
  const LowRank& low = *p.low_rank;
  const int64_t width = gemm_panel_width(), padded = (rows + kGemmRows - 1) / kGemmRows * kGemmRows;
  float* t = pair.t + row * pair.ld;
  for (int64_t at = 0; at < k; at += block) {
    const int64_t depth = std::min(block, k - at);
    gemm_block<RowsOfA::kPacked>(rows, low.r, depth, low.alpha, a + padded * at, kGemmRows * depth,
                                 pair.p + at * width, k * width, !(first && at == 0), t, pair.ld);
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

// C[row.., column..] of one tile over [k0, k0 + k). packed: panels of B's columns, or null: packed here.
// wide: f32 sums of C over several calls (rows ld_wide apart), or null when this call covers all of k.
void tile(const Product& p, int64_t row, int64_t rows, int64_t column, int64_t columns, int64_t k0, int64_t k,
          int64_t block, const float* packed, float* wide, int64_t ld_wide, const PackedPair& pair) {
  const int64_t width = gemm_panel_width(), padded = (rows + kGemmRows - 1) / kGemmRows * kGemmRows;
  const bool direct = p.c_dtype == kF32, first = k0 == 0, last = k0 + k == p.k;
  // tile_of_t reads A packed.
  const int64_t readers = p.low_rank == nullptr ? columns : columns + kFewColumns;
  const TileOfA a = p.a.dtype == kF32 ? tile_of_a<float>(p.a, row, rows, k0, k, block, readers)
                                      : tile_of_a<BFloat16>(p.a, row, rows, k0, k, block, readers);
  if (pair.p != nullptr) tile_of_t(p, pair, a.data, row, rows, first, last, k, block);
  // Some columns at a time, so that their sums stay in the second-level cache over all blocks of k.
  for (int64_t j = 0; j < columns; j += kChunk) {
    const int64_t count = std::min(kChunk, columns - j);
    const int64_t offset = row * p.ldc + column + j;
    float* c = direct ? static_cast<float*>(p.c) + offset : wide + j;
    int64_t ldc = direct ? p.ldc : ld_wide;
    if (!direct && wide == nullptr) {
      ldc = kChunk + 16;
      c = local_buffer(LocalSlot::kC, rows * ldc);
    }
    for (int64_t at = 0; at < k; at += block) {
      const int64_t depth = std::min(block, k - at);
      const float* panels = packed + j * k + at * width;
      int64_t stride = k * width;
      if (packed == nullptr) {
        float* own = local_buffer(LocalSlot::kB, (count + width - 1) / width * width * depth);
        pack_b(p.b, k0 + at, depth, column + j, count, own);
        panels = own;
        stride = depth * width;
      }
      const bool add = !(first && at == 0) || (direct && p.accumulate);
      if (a.ld == 0)
        gemm_block<RowsOfA::kPacked>(rows, count, depth, p.alpha, a.data + padded * at, kGemmRows * depth,
                                     panels, stride, add, c, ldc);
      else
        gemm_block<RowsOfA::kAsStored>(rows, count, depth, p.alpha, a.data + at, a.ld, panels, stride, add, c,
                                       ldc);
    }
    if (pair.q != nullptr)
      gemm_block<RowsOfA::kAsStored>(rows, count, p.low_rank->r, p.low_rank->beta, pair.t + row * pair.ld,
                                     pair.ld, pair.q + j * p.low_rank->r, p.low_rank->r * width, true, c,
                                     ldc);
    if (!direct && last)
      round_rows(c, ldc, rows, count, static_cast<BFloat16*>(p.c) + offset, p.ldc, p.accumulate);
  }
}

}  // namespace nibble::backend::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace nibble::backend::cpu {
HWY_EXPORT(pack_b);
HWY_EXPORT(panel_width);
HWY_EXPORT(tile);

namespace {

constexpr int64_t kBlock =
    384;  // k of one pass: a panel of B and six rows of A stay in the first-level cache
constexpr int64_t kTileRows = 96;     // rows of A of one tile stay in the second-level cache
constexpr int64_t kSlice = 2048;      // columns of B packed at a time
constexpr int64_t kPacked = 2 << 20;  // values of B packed at a time: 8 MB

int64_t divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// k in equal blocks. Depends on k alone: it decides the order of the sums.
int64_t block_of_k(int64_t k) { return std::max<int64_t>(8, divide(divide(k, divide(k, kBlock)), 8) * 8); }

// Rows in equal tiles that keep every thread busy to the end.
int64_t tile_rows(int64_t m) {
  const int64_t panels = divide(divide(m, 6), threads()), tiles = divide(panels * 6, kTileRows);
  return divide(panels, tiles) * 6;
}

}  // namespace

void multiply_f32(Stream& stream, const Product& p) {
  const int64_t width = HWY_DYNAMIC_DISPATCH(panel_width)();
  const int64_t block = block_of_k(p.k);
  const bool few = p.m <= kFewRows;
  // Slabs of k where B is too large to be packed whole; sums in between are f32.
  const int64_t slice = few ? p.n : std::min(divide(p.n, width) * width, kSlice);
  int64_t slab = p.k;
  if (!few && slab * slice > kPacked) slab = std::max<int64_t>(1, kPacked / slice / block) * block;
  const bool wide = slab < p.k && p.c_dtype != kF32;
  float* sums = nullptr;
  if (wide)
    sums =
        reinterpret_cast<float*>(stream.scratch(Stream::kPartialSlot, static_cast<size_t>(p.m * slice) * 4));
  float *packed = nullptr, *packed_p = nullptr, *packed_q = nullptr;
  PackedPair pair;
  if (!few) {
    const int64_t columns = divide(slice, width) * width, r = p.low_rank == nullptr ? 0 : p.low_rank->r;
    pair.ld = divide(r, width) * width;
    packed = reinterpret_cast<float*>(stream.scratch(
        Stream::kKernelSlot, static_cast<size_t>(columns * (slab + r) + pair.ld * (slab + p.m)) * 4));
    packed_q = packed + columns * slab;
    packed_p = packed_q + columns * r;
    pair.t = packed_p + pair.ld * slab;
  }
  if (few) {
    const int64_t columns =
        std::clamp<int64_t>(divide(divide(p.n, 2 * threads()), width) * width, width, 512);
    parallel_for(p.n, columns, [&](int64_t begin, int64_t end) {
      HWY_DYNAMIC_DISPATCH(tile)(p, 0, p.m, begin, end - begin, 0, p.k, block, nullptr, nullptr, 0, {});
    });
    return;
  }
  const int64_t rows = tile_rows(p.m);
  for (int64_t column = 0; column < p.n; column += slice) {
    const int64_t columns = std::min(slice, p.n - column);
    for (int64_t k0 = 0; k0 < p.k; k0 += slab) {
      const int64_t k = std::min(slab, p.k - k0);
      parallel_for(columns, 2 * width, [&](int64_t begin, int64_t end) {
        HWY_DYNAMIC_DISPATCH(pack_b)(p.b, k0, k, column + begin, end - begin, packed + begin * k);
      });
      if (p.low_rank != nullptr) {
        pair.p = column == 0 ? packed_p : nullptr;
        pair.q = k0 + k == p.k ? packed_q : nullptr;
        if (pair.p != nullptr) HWY_DYNAMIC_DISPATCH(pack_b)(p.low_rank->p, k0, k, 0, p.low_rank->r, packed_p);
        if (pair.q != nullptr)
          HWY_DYNAMIC_DISPATCH(pack_b)(p.low_rank->q, 0, p.low_rank->r, column, columns, packed_q);
      }
      parallel_for(p.m, rows, [&](int64_t begin, int64_t end) {
        HWY_DYNAMIC_DISPATCH(tile)
        (p, begin, end - begin, column, columns, k0, k, block, packed, wide ? sums + begin * slice : nullptr,
         slice, pair);
      });
    }
  }
}

}  // namespace nibble::backend::cpu
#endif  // HWY_ONCE
