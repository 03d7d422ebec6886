// The one list of operations: what goes in, the formula in plain f64 loops (the composed form), how near the
// operation must come to it, and what it costs. It drives correctness, gradients, memory guards, speed and
// support.
//
// A new operation is a row here; everything else comes with it.
#pragma once
#include <cmath>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "backend/cpu/attention.h"
#include "base/rng.h"
#include "ops/ops.h"

namespace nibble::ops::test {

using Values = std::vector<std::vector<double>>;  // of each input

struct Input {
  Shape shape;
  bool parameter = false;  // F32 with an F32 gradient; otherwise an activation of the compute type
  bool gradient = true;
  double scale = 1;  // of its normal random values
};

struct OpCase {
  std::string name;
  std::vector<Input> inputs;
  std::function<Variable(Context&, const std::vector<Variable>&)> op;
  std::function<std::vector<double>(const Values&)> formula;
  double f32 = 2e-6, bf16 = 6e-3;  // largest ‖error‖ / ‖value‖ of the result; gradients get four times that
  double flops = 0;                // of the forward
  bool root = false;               // must be the root of a tape: dy is 1
};

// For GoogleTest's messages.
inline void PrintTo(const OpCase& c, std::ostream* out) { *out << c.name; }

// Tensors that a case owns; made once, on the host.
inline Tensor i32_tensor(const Shape& shape, const std::vector<int32_t>& values) {
  Tensor t = Tensor::empty(host_allocator(), shape, kI32, "case");
  std::copy(values.begin(), values.end(), t.data<int32_t>());
  return t;
}
inline Tensor f32_tensor(const Shape& shape, const std::vector<double>& values) {
  Tensor t = Tensor::empty(host_allocator(), shape, kF32, "case");
  for (int64_t i = 0; i < t.numel(); ++i)
    t.data<float>()[i] = static_cast<float>(values[static_cast<size_t>(i)]);
  return t;
}
inline std::vector<double> normal_values(int64_t n, double scale, uint64_t stream) {
  const Rng rng(1, stream);
  std::vector<double> v(static_cast<size_t>(n));
  for (size_t i = 0; i < v.size(); ++i) v[i] = scale * rng.normal(i);
  return v;
}

// y[t, o] += factor · Σ_i x[t, i] w[o, i] for t in [begin, end).
inline void add_product(std::vector<double>& y, const std::vector<double>& x, const std::vector<double>& w,
                        int64_t begin, int64_t end, int64_t in, int64_t out, double factor) {
  for (int64_t t = begin; t < end; ++t)
    for (int64_t o = 0; o < out; ++o) {
      double s = 0;
      for (int64_t i = 0; i < in; ++i)
        s += x[static_cast<size_t>(t * in + i)] * w[static_cast<size_t>(o * in + i)];
      y[static_cast<size_t>(t * out + o)] += factor * s;
    }
}

inline OpCase add_case(int64_t rows, int64_t cols) {
  return {.name = fmt::format("add_{}x{}", rows, cols),
          .inputs = {{{rows, cols}}, {{rows, cols}}},
          .op = [](Context& cx, const auto& in) { return add(cx, in[0], in[1]); },
          .formula =
              [](const Values& v) {
                std::vector<double> y = v[0];
                for (size_t i = 0; i < y.size(); ++i) y[i] += v[1][i];
                return y;
              },
          .flops = static_cast<double>(rows * cols)};
}

// Rows of `heads` vectors of `width`.
inline OpCase rms_norm_case(int64_t rows, int64_t width, int64_t heads = 1, float offset = 0) {
  constexpr double kEps = 1e-3;
  return {.name = fmt::format("rms_norm_{}x{}{}", rows, width, heads > 1 ? "_heads" : ""),
          .inputs = {{{rows, heads * width}}, {{width}, true}},
          .op =
              [=](Context& cx, const auto& in) {
                return rms_norm(cx, in[0], in[1], static_cast<float>(kEps), offset, heads);
              },
          .formula =
              [=](const Values& v) {
                std::vector<double> y = v[0];
                for (int64_t t = 0; t < rows * heads; ++t) {
                  double squares = 0;
                  for (int64_t i = 0; i < width; ++i) squares += std::pow(v[0][size_t(t * width + i)], 2);
                  const double r =
                      1 / std::sqrt(squares / static_cast<double>(width) + static_cast<float>(kEps));
                  for (int64_t i = 0; i < width; ++i)
                    y[size_t(t * width + i)] *= r * (static_cast<double>(offset) + v[1][size_t(i)]);
                }
                return y;
              },
          .flops = 4.0 * static_cast<double>(rows * heads * width)};
}

inline OpCase layer_norm_case(int64_t rows, int64_t width) {
  constexpr double kEps = 1e-3;
  return {.name = fmt::format("layer_norm_{}x{}", rows, width),
          .inputs = {{{rows, width}}, {{width}, true}, {{width}, true}},
          .op = [](Context& cx,
                   const auto& in) { return layer_norm(cx, in[0], in[1], in[2], static_cast<float>(kEps)); },
          .formula =
              [rows, width](const Values& v) {
                std::vector<double> y = v[0];
                for (int64_t t = 0; t < rows; ++t) {
                  double mean = 0, variance = 0;
                  for (int64_t i = 0; i < width; ++i)
                    mean += v[0][size_t(t * width + i)] / static_cast<double>(width);
                  for (int64_t i = 0; i < width; ++i)
                    variance += std::pow(v[0][size_t(t * width + i)] - mean, 2) / static_cast<double>(width);
                  const double r = 1 / std::sqrt(variance + static_cast<float>(kEps));
                  for (int64_t i = 0; i < width; ++i)
                    y[size_t(t * width + i)] =
                        (v[0][size_t(t * width + i)] - mean) * r * v[1][size_t(i)] + v[2][size_t(i)];
                }
                return y;
              },
          .f32 = 4e-6,
          .flops = 7.0 * static_cast<double>(rows * width)};
}

inline double activated(Activation f, double z) {
  switch (f) {
    case Activation::kRelu:
      return std::max(z, 0.0);
    case Activation::kGelu:
      return z / 2 * std::erfc(-z / std::sqrt(2.0));
    case Activation::kGeluTanh:
      return z / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (z + 0.044715 * z * z * z)));
    case Activation::kTanh:
      return std::tanh(z);
    case Activation::kSilu:
      break;
  }
  return z / (1 + std::exp(-z));
}
inline const char* activation_name(Activation f) {
  constexpr const char* kNames[] = {"relu", "gelu", "gelu_tanh", "silu", "tanh"};
  return kNames[static_cast<int>(f)];
}

inline OpCase activation_case(int64_t rows, int64_t width, Activation f) {
  return {.name = fmt::format("activation_{}", activation_name(f)),
          .inputs = {{{rows, width}, false, true, 2}},
          .op = [f](Context& cx, const auto& in) { return activation(cx, in[0], f); },
          .formula =
              [f](const Values& v) {
                std::vector<double> y = v[0];
                for (double& x : y) x = activated(f, x);
                return y;
              },
          .flops = 8.0 * static_cast<double>(rows * width)};
}

inline OpCase gated_case(int64_t rows, int64_t width, Activation f) {
  return {.name = fmt::format("gated_{}", activation_name(f)),
          .inputs = {{{rows, width}, false, true, 3}, {{rows, width}}},
          .op = [f](Context& cx, const auto& in) { return gated(cx, in[0], in[1], f); },
          .formula =
              [f](const Values& v) {
                std::vector<double> y(v[0].size());
                for (size_t i = 0; i < y.size(); ++i) y[i] = activated(f, v[0][i]) * v[1][i];
                return y;
              },
          .flops = 6.0 * static_cast<double>(rows * width)};
}

inline OpCase scale_case(int64_t rows, int64_t cols, float factor) {
  return {.name = "scale",
          .inputs = {{{rows, cols}}},
          .op = [factor](Context& cx, const auto& in) { return scale(cx, in[0], factor); },
          .formula =
              [factor](const Values& v) {
                std::vector<double> y = v[0];
                for (double& x : y) x *= static_cast<double>(factor);
                return y;
              },
          .flops = static_cast<double>(rows * cols)};
}

inline OpCase columns_case(const std::string& name, int64_t rows, int64_t width, const Columns& c) {
  return {.name = "columns_" + name,
          .inputs = {{{rows, width}}},
          .op = [c](Context& cx, const auto& in) { return columns(cx, in[0], c); },
          .formula =
              [=](const Values& v) {
                std::vector<double> y;
                for (int64_t t = 0; t < rows; ++t)
                  for (int64_t g = 0; g < c.groups; ++g)
                    for (int64_t i = 0; i < c.width; ++i)
                      y.push_back(v[0][size_t(t * width + g * c.stride + c.offset + i)]);
                return y;
              }};
}

// What dropout keeps, as the kernel says it: the formula is about scaling and gradients.
std::vector<double> kept(int64_t n, float p, uint64_t seed, uint64_t step, uint64_t stream);

inline OpCase dropout_case(int64_t rows, int64_t width, float p) {
  return {.name = fmt::format("dropout_{}x{}", rows, width),
          .inputs = {{{rows, width}}},
          .op = [p](Context& cx, const auto& in) { return dropout(cx, in[0], p, 77); },
          .formula =
              [p](const Values& v) {
                std::vector<double> y = v[0];
                const auto mask = kept(static_cast<int64_t>(y.size()), p, 3, 8, 77);
                for (size_t i = 0; i < y.size(); ++i) y[i] *= mask[i] / (1 - static_cast<double>(p));
                return y;
              },
          .flops = static_cast<double>(rows * width)};
}

// Heads of 6, of which the first `dims` turn.
inline OpCase rope_case(int64_t tokens, int64_t heads, int64_t dims) {
  constexpr int64_t kWidth = 6, kPositions = 9;
  const auto angles = normal_values(kPositions * dims / 2, 2, 5);
  std::vector<double> table;
  for (int64_t p = 0; p < kPositions; ++p) {
    for (int64_t i = 0; i < dims / 2; ++i)
      table.push_back(std::cos(angles[static_cast<size_t>(p * dims / 2 + i)]));
    for (int64_t i = 0; i < dims / 2; ++i)
      table.push_back(std::sin(angles[static_cast<size_t>(p * dims / 2 + i)]));
  }
  std::vector<int32_t> positions;
  for (int64_t t = 0; t < tokens; ++t) positions.push_back(static_cast<int32_t>((5 * t + 2) % kPositions));
  return {.name = fmt::format("rope_{}x{}_{}", tokens, heads, dims),
          .inputs = {{{tokens, heads * kWidth}}},
          .op = [t = f32_tensor({kPositions, dims}, table), p = i32_tensor({tokens}, positions)](
                    Context& cx, const auto& in) { return rope(cx, in[0], t, p, kWidth); },
          .formula =
              [=](const Values& v) {
                std::vector<double> y = v[0];
                for (int64_t t = 0; t < tokens; ++t)
                  for (int64_t h = 0; h < heads; ++h)
                    for (int64_t i = 0; i < dims / 2; ++i) {
                      const auto a = static_cast<size_t>((t * heads + h) * kWidth + i),
                                 b = a + static_cast<size_t>(dims / 2);
                      const auto row = static_cast<size_t>(positions[static_cast<size_t>(t)] * dims + i);
                      const double c = static_cast<float>(table[row]),
                                   s = static_cast<float>(table[row + static_cast<size_t>(dims / 2)]);
                      y[a] = v[0][a] * c - v[0][b] * s;
                      y[b] = v[0][b] * c + v[0][a] * s;
                    }
                return y;
              },
          .flops = 3.0 * static_cast<double>(tokens * heads * kWidth)};
}

// slopes: ALiBi's of each head, where args say that there are such. buckets: of a relative bias.
inline OpCase attention_case(const std::string& name, int64_t tq, int64_t tk,
                             const std::vector<int32_t>& segments, const backend::AttentionArgs& a,
                             const std::vector<double>& slopes = {}, int64_t buckets = 0) {
  const auto n = static_cast<int64_t>(segments.size()) / 4;
  double pairs = 0;
  for (int64_t s = 0; s < n; ++s) pairs += double(segments[size_t(4 * s + 1)]) * segments[size_t(4 * s + 3)];
  std::vector<Input> inputs = {
      {{tq, a.heads * a.head_width}}, {{tk, a.kv_heads * a.head_width}}, {{tk, a.kv_heads * a.head_width}}};
  if (buckets > 0) inputs.push_back({{buckets, a.heads}, true});
  return {.name = "attention_" + name,
          .inputs = inputs,
          .op =
              [t = i32_tensor({n, 4}, segments), a](Context& cx, const auto& in) {
                return attention(cx, in[0], in[1], in[2], t, a, in.size() > 3 ? in[3] : Variable());
              },
          .formula =
              [=](const Values& v) {
                std::vector<double> y(v[0].size(), 0.0);
                const int64_t K = a.head_width, wq = a.heads * K, wk = a.kv_heads * K;
                for (int64_t s = 0; s < n; ++s) {
                  const int64_t q0 = segments[size_t(4 * s)], qn = segments[size_t(4 * s + 1)],
                                k0 = segments[size_t(4 * s + 2)], kn = segments[size_t(4 * s + 3)];
                  for (int64_t i = 0; i < qn; ++i)
                    for (int64_t h = 0; h < a.heads; ++h) {
                      const int64_t g = h / (a.heads / a.kv_heads), last = a.causal ? kn - qn + i : kn - 1;
                      const int64_t first = a.window > 0 ? std::max<int64_t>(0, last - a.window + 1) : 0;
                      std::vector<double> p;
                      double total = 0;
                      for (int64_t j = first; j <= last; ++j) {
                        double dot = 0;
                        for (int64_t c = 0; c < K; ++c)
                          dot += v[0][size_t((q0 + i) * wq + h * K + c)] *
                                 v[1][size_t((k0 + j) * wk + g * K + c)];
                        double score = dot * static_cast<double>(a.scale);
                        const auto cap = static_cast<double>(a.softcap);
                        if (cap > 0) score = cap * std::tanh(score / cap);
                        if (a.alibi) score += slopes[size_t(h)] * static_cast<double>(j - last);
                        if (buckets > 0)
                          score += v[3][size_t(backend::cpu::relative_bucket(j - (kn - qn + i), !a.causal,
                                                                             buckets, a.bias_distance) *
                                                   a.heads +
                                               h)];
                        p.push_back(std::exp(score));
                        total += p.back();
                      }
                      for (int64_t j = first; j <= last; ++j)
                        for (int64_t c = 0; c < K; ++c)
                          y[size_t((q0 + i) * wq + h * K + c)] +=
                              p[size_t(j - first)] / total * v[2][size_t((k0 + j) * wk + g * K + c)];
                    }
                }
                return y;
              },
          .f32 = 5e-6,
          .bf16 = 1e-2,
          .flops = 4.0 * pairs * static_cast<double>(a.heads * a.head_width)};
}

inline OpCase embedding_case(int64_t rows, int64_t width, const std::vector<int32_t>& ids) {
  return {.name = "embedding",
          .inputs = {{{rows, width}, true}},
          .op =
              [ids, w = std::make_shared<quant::Weight>()](Context& cx, const auto& in) {
                *w = quant::dense_weight(in[0].value());  // full fine-tuning: the weight is the parameter
                Tensor t = cx.empty({static_cast<int64_t>(ids.size())}, kI32, "ids");
                if (t.raw() != nullptr) std::copy(ids.begin(), ids.end(), t.template data<int32_t>());
                return embedding(cx, t, *w, in[0]);
              },
          .formula =
              [ids, width](const Values& v) {
                std::vector<double> y;
                for (const int32_t id : ids)
                  y.insert(y.end(), v[0].begin() + id * width, v[0].begin() + (id + 1) * width);
                return y;
              }};
}

// How a weight is held in a case.
inline std::shared_ptr<quant::Weight> frozen(const char* format, int64_t out, int64_t in) {
  const auto values = normal_values(out * in, 1 / std::sqrt(static_cast<double>(in)), 9);
  if (std::string(format) == "f32")
    return std::make_shared<quant::Weight>(quant::dense_weight(f32_tensor({out, in}, values)));
  const std::vector<float> narrow(values.begin(), values.end());
  return std::make_shared<quant::Weight>(
      quant::encode(quant::find_format(format), narrow, {out, in}, 64, false));
}
inline std::vector<double> decoded(const quant::Weight& w) {
  std::vector<float> v(static_cast<size_t>(w.numel()));
  quant::decode_rows(w, 0, w.rows(), v.data());
  return {v.begin(), v.end()};
}

struct Span {
  int64_t begin, end;
};
// inputs: x, bias, then A and B of each span. `trainable`: the weight is an input too (the last).
inline OpCase linear_case(const std::string& name, const char* format, int64_t tokens, int64_t in,
                          int64_t out, int64_t rank, const std::vector<Span>& spans, float drop,
                          bool trainable, decltype(&linear) function = &linear) {
  const auto weight = frozen(format, out, in);
  std::vector<Input> inputs = {{{tokens, in}}, {{out}, true}};
  for (size_t i = 0; i < spans.size(); ++i) {
    inputs.push_back({{rank, in}, true, true, 0.3});
    inputs.push_back({{out, rank}, true, true, 0.3});
  }
  if (trainable) inputs.push_back({{out, in}, true, true, 0.3});
  const float factor = 0.5f;
  return {.name = "linear_" + name,
          .inputs = inputs,
          .op =
              [=, held = std::make_shared<quant::Weight>()](Context& cx, const std::vector<Variable>& v) {
                *held = trainable ? quant::dense_weight(v.back().value()) : *weight;
                LinearArgs args{.weight = held.get(),
                                .trainable = trainable ? v.back() : Variable(),
                                .bias = v[1],
                                .lora = {}};
                for (size_t i = 0; i < spans.size(); ++i)
                  args.lora.push_back(
                      {v[2 + 2 * i], v[3 + 2 * i], factor, drop, 40 + i, spans[i].begin, spans[i].end});
                return function(cx, v[0], args);
              },
          .formula =
              [=](const Values& v) {
                std::vector<double> y(static_cast<size_t>(tokens * out), 0.0);
                for (size_t i = 0; i < y.size(); ++i) y[i] = v[1][i % static_cast<size_t>(out)];
                add_product(y, v[0], trainable ? v.back() : decoded(*weight), 0, tokens, in, out, 1);
                for (size_t i = 0; i < spans.size(); ++i) {
                  const auto [begin, end] = spans[i];
                  std::vector<double> u = v[0], xa(static_cast<size_t>(tokens * rank), 0.0);
                  if (drop > 0) {
                    const auto mask =
                        kept((end - begin) * in, drop, 3, 8, 40 + i + static_cast<uint64_t>(begin));
                    for (size_t k = 0; k < mask.size(); ++k)
                      u[static_cast<size_t>(begin * in) + k] *= mask[k] / (1 - static_cast<double>(drop));
                  }
                  add_product(xa, u, v[2 + 2 * i], begin, end, in, rank, 1);
                  add_product(y, xa, v[3 + 2 * i], begin, end, rank, out, static_cast<double>(factor));
                }
                return y;
              },
          .f32 = 4e-6,
          .bf16 = 8e-3,
          .flops = 2.0 * static_cast<double>(tokens * in * out)};
}

// inputs: h, bias, A, B over the whole stream, and the head's weight when trainable.
inline OpCase head_case(const std::string& name, int64_t tokens, int64_t width, int64_t vocab, int64_t chunk,
                        const std::vector<int32_t>& rows, const std::vector<int32_t>& labels, bool trainable,
                        float drop = 0, float softcap = 0) {
  const auto weight = frozen("f32", vocab, width);
  const auto n = static_cast<int64_t>(rows.size());
  const float factor = 0.25f;
  std::vector<Input> inputs = {
      {{tokens, width}}, {{vocab}, true}, {{2, width}, true, true, 0.3}, {{vocab, 2}, true, true, 0.3}};
  if (trainable) inputs.push_back({{vocab, width}, true, true, 0.5});
  return {
      .name = "head_" + name,
      .inputs = inputs,
      .op =
          [=, held = std::make_shared<quant::Weight>(), r = i32_tensor({n}, rows),
           l = i32_tensor({n}, labels)](Context& cx, const std::vector<Variable>& v) {
            *held = trainable ? quant::dense_weight(v.back().value()) : *weight;
            LinearArgs args{
                .weight = held.get(), .trainable = trainable ? v[4] : Variable(), .bias = v[1], .lora = {}};
            args.softcap = softcap;
            args.lora.push_back({v[2], v[3], 0.5f, drop, 40, 0, tokens});
            return head_cross_entropy(cx, v[0], args, r, l, factor, chunk).loss;
          },
      .formula =
          [=](const Values& v) {
            std::vector<double> y(static_cast<size_t>(tokens * vocab), 0.0),
                xa(static_cast<size_t>(tokens * 2), 0.0);
            for (size_t i = 0; i < y.size(); ++i) y[i] = v[1][i % static_cast<size_t>(vocab)];
            std::vector<double> u = v[0];
            for (int64_t begin = 0; drop > 0 && begin < n; begin += chunk) {
              const int64_t m = std::min(chunk, n - begin);
              const auto mask = kept(m * width, drop, 3, 8, 40 + static_cast<uint64_t>(begin));
              for (int64_t i = 0; i < m * width; ++i)
                u[static_cast<size_t>(rows[static_cast<size_t>(begin + i / width)] * width + i % width)] *=
                    mask[static_cast<size_t>(i)] / (1 - static_cast<double>(drop));
            }
            add_product(y, v[0], trainable ? v[4] : decoded(*weight), 0, tokens, width, vocab, 1);
            add_product(xa, u, v[2], 0, tokens, width, 2, 1);
            add_product(y, xa, v[3], 0, tokens, 2, vocab, 0.5);
            const auto cap = static_cast<double>(softcap);
            if (cap > 0)
              for (double& x : y) x = cap * std::tanh(x / cap);
            double loss = 0;
            for (size_t i = 0; i < rows.size(); ++i) {
              if (labels[i] < 0) continue;
              const double* row = &y[static_cast<size_t>(rows[i] * vocab)];
              double sum = 0;
              for (int64_t c = 0; c < vocab; ++c) sum += std::exp(row[c]);
              loss += std::log(sum) - row[labels[i]];
            }
            return std::vector<double>{static_cast<double>(factor) * loss};
          },
      .f32 = 5e-6,
      .bf16 = 1e-2,
      .flops = 4.0 * static_cast<double>(n * width * vocab),
      .root = true};
}

// inputs: h, bias and the head's weight.
inline OpCase squared_error_case(int64_t tokens, int64_t width, const std::vector<int32_t>& rows,
                                 const std::vector<double>& targets) {
  const auto n = static_cast<int64_t>(rows.size());
  return {.name = "head_squared_error",
          .inputs = {{{tokens, width}}, {{1}, true}, {{1, width}, true, true, 0.5}},
          .op =
              [held = std::make_shared<quant::Weight>(), r = i32_tensor({n}, rows),
               t = f32_tensor({n}, targets)](Context& cx, const std::vector<Variable>& v) {
                *held = quant::dense_weight(v[2].value());
                const LinearArgs args{.weight = held.get(), .trainable = v[2], .bias = v[1], .lora = {}};
                return head_squared_error(cx, v[0], args, r, t, 0.25f).loss;
              },
          .formula =
              [=](const Values& v) {
                double loss = 0;
                for (size_t i = 0; i < rows.size(); ++i) {
                  double score = v[1][0];
                  for (int64_t c = 0; c < width; ++c)
                    score += v[0][size_t(rows[i] * width + c)] * v[2][size_t(c)];
                  loss += (score - targets[i]) * (score - targets[i]);
                }
                return std::vector<double>{0.25 * loss};
              },
          .f32 = 5e-6,
          .bf16 = 1e-2,
          .root = true};
}

inline OpCase rows_case(int64_t tokens, int64_t width, const std::vector<int32_t>& which) {
  return {.name = "rows",
          .inputs = {{{tokens, width}}},
          .op = [t = i32_tensor({static_cast<int64_t>(which.size())}, which)](
                    Context& cx, const auto& in) { return rows(cx, in[0], t); },
          .formula =
              [=](const Values& v) {
                std::vector<double> y;
                for (const int32_t r : which)
                  y.insert(y.end(), v[0].begin() + r * width, v[0].begin() + (r + 1) * width);
                return y;
              }};
}

inline std::vector<OpCase> op_cases() {
  const backend::AttentionArgs gqa{
      .heads = 4, .kv_heads = 2, .head_width = 6, .scale = 0.4f, .causal = true, .window = 0};
  backend::AttentionArgs window = gqa, full = gqa, one = gqa;
  window.window = 3;
  full.causal = false;
  one.kv_heads = 4;
  backend::AttentionArgs six = gqa, eight = gqa, capped = gqa, both = window;
  six.heads = 6;  // no power of two: the four slopes of four heads, then the odd ones of eight
  eight.heads = 8;
  six.alibi = eight.alibi = both.alibi = true;
  capped.softcap = 0.7f;
  backend::AttentionArgs relative = one;
  relative.bias_distance = 7;
  backend::AttentionArgs relative_full = relative;
  relative_full.causal = false;
  both.softcap = 2;
  return {
      add_case(5, 7),
      rms_norm_case(5, 24),
      rms_norm_case(70, 3),
      rms_norm_case(9, 5, 3, 1),
      layer_norm_case(5, 24),
      layer_norm_case(70, 3),
      activation_case(6, 9, Activation::kRelu),
      activation_case(6, 9, Activation::kGelu),
      activation_case(6, 9, Activation::kGeluTanh),
      activation_case(6, 9, Activation::kSilu),
      activation_case(6, 9, Activation::kTanh),
      gated_case(6, 9, Activation::kSilu),
      gated_case(6, 9, Activation::kGeluTanh),
      gated_case(6, 9, Activation::kGelu),
      scale_case(5, 7, 3.25f),
      columns_case("by_head", 35, 24, {.groups = 2, .stride = 12, .offset = 4, .width = 4}),
      columns_case("in_turn", 5, 24, {.groups = 1, .stride = 24, .offset = 16, .width = 8}),
      rows_case(9, 11, {0, 3, 8}),
      dropout_case(9, 11, 0.3f),
      rope_case(7, 3, 6),
      rope_case(7, 2, 4),
      attention_case("causal_gqa", 13, 13, {0, 5, 0, 5, 5, 8, 5, 8}, gqa),
      attention_case("window", 11, 11, {0, 11, 0, 11}, window),
      attention_case("full_heads", 9, 9, {0, 4, 0, 4, 4, 5, 4, 5}, one),
      attention_case("cross", 6, 10, {0, 2, 0, 7, 2, 4, 7, 3}, full),
      attention_case("after_a_prefix", 5, 12, {0, 2, 0, 6, 2, 3, 6, 6}, gqa),
      attention_case("rows_in_no_segment", 8, 8, {1, 3, 1, 3, 5, 2, 5, 2}, gqa),
      attention_case("alibi_six_heads", 13, 13, {0, 5, 0, 5, 5, 8, 5, 8}, six,
                     {0.25, 1.0 / 16, 1.0 / 64, 1.0 / 256, 0.5, 0.125}),
      attention_case("alibi_eight_heads_after_a_prefix", 9, 16, {0, 2, 0, 6, 2, 7, 6, 10}, eight,
                     {0.5, 0.25, 0.125, 1.0 / 16, 1.0 / 32, 1.0 / 64, 1.0 / 128, 1.0 / 256}),
      attention_case("softcap", 13, 13, {0, 5, 0, 5, 5, 8, 5, 8}, capped),
      attention_case("softcap_alibi_window", 11, 11, {0, 11, 0, 11}, both,
                     {0.25, 1.0 / 16, 1.0 / 64, 1.0 / 256}),
      attention_case("relative_bias", 13, 13, {0, 5, 0, 5, 5, 8, 5, 8}, relative, {}, 8),
      attention_case("relative_bias_both_ways", 13, 13, {0, 5, 0, 5, 5, 8, 5, 8}, relative_full, {}, 8),
      attention_case("relative_bias_after_a_prefix", 9, 16, {0, 2, 0, 6, 2, 7, 6, 10}, relative, {}, 6),
      embedding_case(6, 5, {3, 1, 3, 0, 5}),
      linear_case("f32", "f32", 20, 12, 10, 3, {}, 0, false),
      linear_case("nf4_lora", "nf4", 20, 12, 10, 3, {{0, 20}}, 0, false),
      linear_case("nf4_dropout", "nf4", 19, 16, 9, 4, {{0, 19}}, 0.25f, false),
      linear_case("int8_spans", "int8", 18, 10, 8, 2, {{0, 7}, {9, 18}}, 0.2f, false),
      linear_case("trainable", "f32", 17, 9, 7, 2, {{2, 17}}, 0, true),
      linear_case("composed_spans", "int8", 18, 10, 8, 2, {{0, 7}, {9, 18}}, 0.2f, false, &linear_composed),
      linear_case("composed_trainable", "f32", 17, 9, 7, 2, {{2, 17}}, 0, true, &linear_composed),
      head_case("one_chunk", 7, 8, 11, 16, {0, 2, 6}, {4, 10, 0}, false),
      head_case("chunks", 9, 8, 11, 2, {1, 2, 4, 5, 8}, {4, -1, 0, 7, 7}, false),
      head_case("dropout", 9, 8, 11, 2, {1, 2, 4, 5, 8}, {4, -1, 0, 7, 7}, false, 0.25f),
      head_case("softcap", 9, 8, 11, 2, {1, 2, 4, 5, 8}, {4, -1, 0, 7, 7}, false, 0, 1.5f),
      head_case("trainable", 9, 8, 11, 2, {1, 2, 4, 5, 8}, {4, 2, 0, 7, 7}, true),
      squared_error_case(7, 9, {0, 2, 6}, {0.5, -1.25, 3})};
}

}  // namespace nibble::ops::test
