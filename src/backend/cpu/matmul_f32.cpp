// Products by packed panels (Goto & van de Geijn 2008): B is packed once for all threads, rows of A are
// divided among them. With few rows the columns are divided instead and each thread packs its own.
#include "backend/cpu/local_buffer.h"
#include "backend/cpu/matmul.h"
#include "backend/cpu/simd_targets.h"
#include "base/parallel.h"

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

// C[row.., column..] of one tile over [k0, k0 + k). packed: panels of B's columns, or null: packed here.
// wide: f32 sums of C over several calls (rows ld_wide apart), or null when this call covers all of k.
void tile(const Product& p, int64_t row, int64_t rows, int64_t column, int64_t columns, int64_t k0, int64_t k,
          int64_t block, const float* packed, float* wide, int64_t ld_wide) {
  const int64_t width = gemm_panel_width(), padded = (rows + kGemmRows - 1) / kGemmRows * kGemmRows;
  const bool direct = p.c_dtype == kF32, first = k0 == 0, last = k0 + k == p.k;
  const TileOfA a = p.a.dtype == kF32 ? tile_of_a<float>(p.a, row, rows, k0, k, block, columns)
                                      : tile_of_a<BFloat16>(p.a, row, rows, k0, k, block, columns);
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
constexpr int64_t kFewRows = 96;      // up to here columns are divided among threads
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
  float* packed = nullptr;
  if (!few)
    packed = reinterpret_cast<float*>(
        stream.scratch(Stream::kKernelSlot, static_cast<size_t>(divide(slice, width) * width * slab) * 4));
  if (few) {
    const int64_t columns =
        std::clamp<int64_t>(divide(divide(p.n, 2 * threads()), width) * width, width, 512);
    parallel_for(p.n, columns, [&](int64_t begin, int64_t end) {
      HWY_DYNAMIC_DISPATCH(tile)(p, 0, p.m, begin, end - begin, 0, p.k, block, nullptr, nullptr, 0);
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
      parallel_for(p.m, rows, [&](int64_t begin, int64_t end) {
        HWY_DYNAMIC_DISPATCH(tile)
        (p, begin, end - begin, column, columns, k0, k, block, packed, wide ? sums + begin * slice : nullptr,
         slice);
      });
    }
  }
}

}  // namespace nibble::backend::cpu
#endif  // HWY_ONCE
