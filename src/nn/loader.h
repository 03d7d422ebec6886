// Construction of modules from a weight source: where, in which format, and what stays dense.
#pragma once
#include <functional>

#include "io/weights.h"
#include "nn/linear.h"

namespace nibble::nn {

struct LoadOptions {
  quant::QuantizeSpec quantize;  // for linears; embeddings, norms and the head stay dense
  DType dense_dtype = kBF16;     // what dense weights are held in: BF16 or F32
  std::function<void(const std::string& name, int64_t done_bytes)> progress;  // may be empty
};

// The dense [in, out] matrix as [out, in], of the same type. On the meta device shapes alone.
quant::Weight transposed(const quant::Weight& dense, Allocator& allocator, std::string_view name);

class Loader {
 public:
  Loader(io::ScopedWeights weights, backend::Stream& stream, const LoadOptions& options)
      : weights_(std::move(weights)), stream_(stream), options_(options) {}
  Loader operator/(std::string_view part) const { return {weights_ / part, stream_, options_}; }
  Loader operator/(int64_t index) const { return {weights_ / index, stream_, options_}; }

  // "weight" (and "bias" when it exists and `bias` says so) of this path. On a meta stream only shapes are
  // made. Errors: a missing tensor, another shape, non-finite values (name and index given).
  // Stored::kInOut: a dense one is stored as [in, out] (GPT-2's Conv1D); a quantized one never is, as
  // bitsandbytes turns it.
  Linear linear(int64_t in, int64_t out, bool bias, Stored stored = Stored::kOutIn) const;
  // The same, never quantized to 4 bits.
  Linear dense_linear(int64_t in, int64_t out, bool bias) const;
  // A dense matrix that is never quantized to 4 bits (embedding, head); stored GGUF blocks are kept under
  // `stored`.
  quant::Weight table(std::string_view name, int64_t rows, int64_t cols) const;
  // A vector such as a norm's weight, F32.
  Tensor vector(std::string_view name, int64_t n) const;
  bool has(std::string_view name) const { return weights_.has(name); }
  backend::Stream& stream() const { return stream_; }
  const LoadOptions& options() const { return options_; }
  std::string path() const { return weights_.path(); }

 private:
  io::ScopedWeights weights_;
  backend::Stream& stream_;
  const LoadOptions& options_;
};

}  // namespace nibble::nn
