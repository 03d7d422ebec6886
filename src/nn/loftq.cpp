#include "nn/loftq.h"

#include <cmath>

#include "backend/kernels/matmul.h"
#include "backend/kernels/quantize.h"
#include "nn/loader.h"

namespace nibble::nn {
namespace {

constexpr int kIterations = 8;

// Is this what the file holds, code by code?
bool kept_as_stored(const quant::Weight& held, const quant::Weight& stored) {
  return held.is_dense() || held.format == stored.format;
}

// W [out, in], turned where the file has it the other way.
Tensor decoded(backend::Stream& stream, const Linear& linear, const quant::Weight& stored) {
  const bool turned = linear.stored() == Stored::kInOut && stored.is_dense();
  const Shape shape = turned ? Shape{linear.in_features(), linear.out_features()} : linear.weight().shape;
  Tensor values = Tensor::empty(stream.allocator(), shape, kF32, "loftq.decoded");
  backend::decode_weight(stream, stored, 0, shape[0], values);
  return turned ? transposed(quant::dense_weight(values), stream.allocator(), "loftq.decoded").dense : values;
}

// W - Q(W) [out, in].
Tensor error_of(backend::Stream& stream, const Linear& linear, const quant::Weight& stored) {
  Tensor error = decoded(stream, linear, stored),
         held = Tensor::empty(stream.allocator(), error.shape(), kF32, "loftq.decoded");
  backend::decode_weight(stream, linear.weight(), 0, linear.out_features(), held);
  float* e = error.data<float>();
  const float* q = held.data<float>();
  for (int64_t i = 0; i < error.numel(); ++i) e[i] -= q[i];
  return error;
}

// rows [r, n] become orthonormal and span what they spanned, by Cholesky's decomposition of their products;
// a row that adds nothing to those before it becomes zero. Twice, as one pass loses what f32 products lose.
void orthonormalize(backend::Stream& stream, Tensor& rows) {
  const int64_t r = rows.size(0);
  constexpr double kLeast = 1e-6;  // of a row's length² that must be its own
  for (int pass = 0; pass < 2; ++pass) {
    Tensor products = Tensor::empty(stream.allocator(), {r, r}, kF32, "loftq.small"),
           inverse = Tensor::empty(stream.allocator(), {r, r}, kF32, "loftq.small"),
           result = Tensor::empty(stream.allocator(), rows.shape(), kF32, "loftq.rows");
    backend::matmul(stream, rows, rows, products, {.transpose_b = true});
    std::vector<double> l(static_cast<size_t>(r * r)), inv(l.size());
    const auto at = [r](std::vector<double>& m, int64_t i, int64_t j) -> double& {
      return m[static_cast<size_t>(i * r + j)];
    };
    for (int64_t i = 0; i < r; ++i) {
      for (int64_t j = 0; j <= i; ++j) {
        double sum = products.data<float>()[i * r + j];
        const double whole = sum;
        for (int64_t k = 0; k < j; ++k) sum -= at(l, i, k) * at(l, j, k);
        if (j < i)
          at(l, i, j) = at(l, j, j) > 0 ? sum / at(l, j, j) : 0;
        else
          at(l, i, i) = sum > kLeast * whole && whole > 0 ? std::sqrt(sum) : 0;
      }
      if (at(l, i, i) == 0) continue;
      at(inv, i, i) = 1 / at(l, i, i);
      for (int64_t j = 0; j < i; ++j) {
        double sum = 0;
        for (int64_t k = j; k < i; ++k) sum += at(l, i, k) * at(inv, k, j);
        at(inv, i, j) = -sum / at(l, i, i);
      }
    }
    for (int64_t i = 0; i < r * r; ++i)
      inverse.data<float>()[i] = static_cast<float>(inv[static_cast<size_t>(i)]);
    backend::matmul(stream, inverse, rows, result, {});
    rows = result;
  }
}

void set_pair(backend::Stream& stream, LoraPair& pair, const Tensor& error) {
  const int64_t out = error.size(0), in = error.size(1), r = pair.a.variable.size(0);
  Tensor left = Tensor::empty(stream.allocator(), {r, out}, kF32, "loftq.rows"),
         right = Tensor::empty(stream.allocator(), {r, in}, kF32, "loftq.rows");
  backend::matmul(stream, pair.a.variable.value(), error, left, {.transpose_b = true});
  orthonormalize(stream, left);
  for (int i = 0; i < kIterations; ++i) {
    backend::matmul(stream, left, error, right, {});
    orthonormalize(stream, right);
    backend::matmul(stream, right, error, left, {.transpose_b = true});
    orthonormalize(stream, left);
  }
  backend::matmul(stream, left, error, right, {});
  auto* a = pair.a.variable.value().data<float>();
  auto* b = pair.b.variable.value().data<float>();
  for (int64_t i = 0; i < r; ++i) {
    const float *u = left.data<float>() + i * out, *v = right.data<float>() + i * in;
    double squares = 0;
    for (int64_t k = 0; k < in; ++k) squares += static_cast<double>(v[k]) * v[k];
    if (!(squares > 0)) continue;
    const auto length = static_cast<float>(std::sqrt(squares));  // scale · |row of A| · |column of B|
    const float to_a = 1 / std::sqrt(length * pair.scale), to_b = std::sqrt(length / pair.scale);
    for (int64_t k = 0; k < in; ++k) a[i * in + k] = v[k] * to_a;
    for (int64_t o = 0; o < out; ++o) b[o * r + i] = u[o] * to_b;
  }
}

}  // namespace

int64_t start_at_quantization_error(const std::function<void(const LinearVisitor&)>& visit, int id,
                                    const io::WeightSource& original, backend::Stream& stream) {
  int64_t count = 0;
  visit([&](Linear& linear) {
    LoraPair* pair = linear.adapter(id);
    const std::string name = linear.name() + ".weight";
    if (pair == nullptr) return;
    require(pair->scale > 0, "adapter",
            "lora_alpha should be above 0 for adapters that begin at an error, got a scale of {}",
            pair->scale);
    const quant::Weight stored = original.read(name);
    if (kept_as_stored(linear.weight(), stored)) return;
    const Tensor error = error_of(stream, linear, stored);
    original.forget(name);
    set_pair(stream, *pair, error);
    ++count;
  });
  return count;
}

}  // namespace nibble::nn
