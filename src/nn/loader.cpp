#include "nn/loader.h"

#include <atomic>
#include <cmath>

#include "backend/kernels/quantize.h"
#include "base/parallel.h"

namespace nibble::nn {
namespace {

using quant::Weight;

// The parts of a weight that hold values or scales in floating point, besides `dense`.
bool finite(const Tensor& t) {
  if (!t.defined()) return true;
  const auto* p = t.data<float>();
  for (int64_t i = 0; i < t.numel(); ++i)
    if (!std::isfinite(p[i])) return false;
  return true;
}

// First row with a NaN or infinity, or -1. Rows are decoded a few at a time; nothing is kept.
int64_t find_nonfinite_row(backend::Stream& stream, const Weight& w) {
  if (w.codes.defined())
    return finite(w.absmax) && finite(w.nested_absmax) && finite(w.nested_map) &&
                   std::isfinite(w.nested_offset)
               ? -1
               : 0;
  const int64_t cols = w.cols(),
                rows_at_once = std::max<int64_t>(1, (int64_t{1} << 20) / std::max<int64_t>(cols, 1));
  Tensor chunk =
      Tensor::empty(host_allocator(), {std::min(rows_at_once, w.rows()), cols}, kF32, "loader.check");
  std::atomic<int64_t> first{w.rows()};
  for (int64_t begin = 0; begin < w.rows() && first == w.rows(); begin += rows_at_once) {
    const int64_t end = std::min(w.rows(), begin + rows_at_once);
    Tensor part = chunk.rows(0, end - begin);
    backend::decode_weight(stream, w, begin, end, part);
    parallel_for(end - begin, 64, [&](int64_t from, int64_t to) {
      for (int64_t r = from; r < to; ++r) {
        const float* row = part.data<float>() + r * cols;
        float sum = 0;  // 0 · x is 0 for every finite x and NaN otherwise
        for (int64_t i = 0; i < cols; ++i) sum += 0.0f * row[i];
        if (sum == 0) continue;
        for (int64_t seen = first; begin + r < seen && !first.compare_exchange_weak(seen, begin + r);) {
        }
      }
    });
  }
  return first == w.rows() ? -1 : first.load();
}

bool same_memory(const Weight& a, const Weight& b) {
  return a.dense.raw() == b.dense.raw() && a.codes.raw() == b.codes.raw() && a.blocks.raw() == b.blocks.raw();
}

void require_finite(backend::Stream& stream, const Weight& w, const std::string& name) {
  if (stream.device() == Device::kMeta) return;
  const int64_t row = find_nonfinite_row(stream, w);
  require(row < 0, name,
          "row {} holds a NaN or an infinity; the file is damaged or was saved by a run that diverged", row);
}

// As stored -> as held, checked. The file's pages may go when nothing of them is used any more.
Weight convert(const io::ScopedWeights& weights, std::string_view name, const Shape& shape,
               backend::Stream& stream, const quant::QuantizeSpec& spec, DType dense_dtype,
               Stored order = Stored::kOutIn) {
  const std::string full = weights.full(name);
  const MemoryGroup group(stream.allocator(), "weights");
  Weight stored, values;
  const auto quantized = [&] { return weights.has(name) && !weights.source()->read(full).is_dense(); };
  if (order == Stored::kInOut && !quantized()) {
    stored = weights.read(name, {shape[1], shape[0]});
    require_finite(stream, stored, full);
    values = transposed(stored, stream.allocator(), full);
  } else {
    stored = values = weights.read(name, shape);
    require_finite(stream, stored, full);
  }
  Weight held = backend::convert_weight(stream, values, spec, dense_dtype, full);
  if (!same_memory(stored, held)) weights.forget(name);
  return held;
}

template <class T>
void transpose(const T* from, int64_t rows, int64_t cols, T* to) {
  constexpr int64_t kTile = 32;
  parallel_for(cols, kTile, [&](int64_t begin, int64_t end) {
    for (int64_t r0 = 0; r0 < rows; r0 += kTile)
      for (int64_t c = begin; c < end; ++c)
        for (int64_t r = r0; r < std::min(rows, r0 + kTile); ++r) to[c * rows + r] = from[r * cols + c];
  });
}

}  // namespace

Weight transposed(const Weight& dense, Allocator& allocator, std::string_view name) {
  require(dense.is_dense() && dense.shape.rank() == 2, name, "is {} {}; dense matrices can be turned",
          dense.describe(), dense.shape);
  const int64_t rows = dense.rows(), cols = dense.cols();
  Tensor t = Tensor::empty(allocator, {cols, rows}, dense.dense.dtype(), name);
  if (t.raw() == nullptr || dense.dense.raw() == nullptr) return quant::dense_weight(t);
  if (dtype_bytes(t.dtype()) == 4)
    transpose(reinterpret_cast<const uint32_t*>(dense.dense.raw()), rows, cols,
              reinterpret_cast<uint32_t*>(t.raw()));
  else
    transpose(reinterpret_cast<const uint16_t*>(dense.dense.raw()), rows, cols,
              reinterpret_cast<uint16_t*>(t.raw()));
  return quant::dense_weight(t);
}

Linear Loader::linear(int64_t in, int64_t out, bool bias, Stored stored) const {
  require(bias || !weights_.has("bias"), weights_.full("bias"),
          "is in the file, but config.json says there is none");
  Weight w = convert(weights_, "weight", {out, in}, stream_, options_.quantize, options_.dense_dtype, stored);
  if (options_.progress) options_.progress(weights_.full("weight"), w.stored_bytes());
  return {path(), std::move(w), bias ? vector("bias", out) : Tensor(), stored};
}

Linear Loader::dense_linear(int64_t in, int64_t out, bool bias) const {
  return {path(), table("weight", out, in), bias ? vector("bias", out) : Tensor(), Stored::kOutIn, true};
}

Weight Loader::table(std::string_view name, int64_t rows, int64_t cols) const {
  quant::QuantizeSpec dense;
  dense.stored = options_.quantize.stored;
  Weight w = convert(weights_, name, {rows, cols}, stream_, dense, options_.dense_dtype);
  if (options_.progress) options_.progress(weights_.full(name), w.stored_bytes());
  return w;
}

Tensor Loader::vector(std::string_view name, int64_t n) const {
  const Weight stored = weights_.read(name, {n});
  const MemoryGroup group(stream_.allocator(), "weights");
  Tensor t = Tensor::empty(stream_.allocator(), {n}, kF32, weights_.full(name));
  if (t.raw() == nullptr) return t;
  // As a matrix of one row, whatever it is stored as.
  Weight row = stored;
  row.shape = {1, n};
  if (row.dense.defined()) row.dense = row.dense.reshape(row.shape);
  quant::decode_rows(row, 0, 1, t.data<float>());
  require(finite(t), weights_.full(name), "holds a NaN or an infinity; the file is damaged");
  return t;
}

}  // namespace nibble::nn
