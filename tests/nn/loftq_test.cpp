#include "nn/loftq.h"
#include "backend/kernels/quantize.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "tests/message_of.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace nibble::nn {
namespace {

using testing::HasSubstr;
using Matrix = std::vector<double>;  // row-major

class Originals : public io::WeightSource {
 public:
  bool has(const std::string& name) const override { return weights.contains(name); }
  quant::Weight read(const std::string& name) const override { return weights.at(name); }
  std::vector<io::WeightInfo> list() const override { return {}; }
  std::map<std::string, quant::Weight> weights;
};

// Two layers in NF4, the second from a checkpoint that stores it as [in, out].
struct LoftQ : testing::Test {
  LoftQ() : stream(host_allocator()) {
    backend::register_cpu_kernels();
    add("q_proj", 24, 64, Stored::kOutIn);
    add("c_attn", 64, 32, Stored::kInOut);
  }
  void add(const std::string& name, int64_t out, int64_t in, Stored stored) {
    Tensor w = Tensor::empty(host_allocator(), {out, in}, kF32, name);
    const Rng rng(5, stream_id(name));
    for (int64_t i = 0; i < w.numel(); ++i)
      w.data<float>()[i] = static_cast<float>(rng.normal(static_cast<uint64_t>(i)));
    const quant::Weight dense = quant::dense_weight(w);
    originals.weights[name + ".weight"] =
        stored == Stored::kInOut ? transposed(dense, host_allocator(), name) : dense;
    quant::Weight held =
        backend::convert_weight(stream, dense, quant::parse_quantize("nf4", true, 64), kF32, name);
    Matrix& error = errors[name];
    error.resize(static_cast<size_t>(w.numel()));
    std::vector<float> decoded(error.size());
    quant::decode_rows(held, 0, out, decoded.data());
    for (size_t i = 0; i < error.size(); ++i) error[i] = double{w.data<float>()[i]} - double{decoded[i]};
    linears.emplace_back(name, std::move(held), Tensor(), stored);
  }
  std::function<void(const LinearVisitor&)> visit() {
    return [this](const LinearVisitor& v) {
      for (Linear& linear : linears) v(linear);
    };
  }
  void attach(int64_t r, double alpha) {
    io::AdapterConfig config;
    config.r = r;
    config.lora_alpha = alpha;
    config.target_modules = {"all-linear"};
    attach_lora(visit(), config, 0, 1, host_allocator());
  }
  int64_t start() { return start_at_quantization_error(visit(), 0, originals, stream); }
  // Σ (E - scale · B · A)²
  double left(Linear& linear) {
    const LoraPair& pair = *linear.adapter(0);
    const int64_t out = linear.out_features(), in = linear.in_features(), r = pair.a.variable.size(0);
    const float *a = pair.a.variable.value().data<float>(), *b = pair.b.variable.value().data<float>();
    double sum = 0;
    for (int64_t o = 0; o < out; ++o)
      for (int64_t i = 0; i < in; ++i) {
        double e = errors.at(linear.name())[static_cast<size_t>(o * in + i)];
        for (int64_t k = 0; k < r; ++k)
          e -= double{pair.scale} * double{b[o * r + k]} * double{a[k * in + i]};
        sum += e * e;
      }
    return sum;
  }

  backend::Stream stream;
  std::vector<Linear> linears;
  std::map<std::string, Matrix> errors;
  Originals originals;
};

// Σ of the squared singular values beyond the first r, by power iteration with deflation.
double best_left(Matrix e, int64_t rows, int64_t r) {
  const auto cols = static_cast<int64_t>(e.size()) / rows;
  const auto at = [&](int64_t i, int64_t j) -> double& { return e[static_cast<size_t>(i * cols + j)]; };
  for (int64_t k = 0; k < r; ++k) {
    std::vector<double> u(static_cast<size_t>(rows)), v(static_cast<size_t>(cols), 1.0);
    for (int step = 0; step < 2000; ++step) {
      double norm = 0;
      for (int64_t i = 0; i < rows; ++i) {
        double sum = 0;
        for (int64_t j = 0; j < cols; ++j) sum += at(i, j) * v[static_cast<size_t>(j)];
        u[static_cast<size_t>(i)] = sum;
        norm += sum * sum;
      }
      for (double& value : u) value /= std::sqrt(norm);
      for (int64_t j = 0; j < cols; ++j) {
        double sum = 0;
        for (int64_t i = 0; i < rows; ++i) sum += at(i, j) * u[static_cast<size_t>(i)];
        v[static_cast<size_t>(j)] = sum;
      }
    }
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < cols; ++j) at(i, j) -= u[static_cast<size_t>(i)] * v[static_cast<size_t>(j)];
  }
  double sum = 0;
  for (const double value : e) sum += value * value;
  return sum;
}

double squares(const Matrix& e) {
  double sum = 0;
  for (const double value : e) sum += value * value;
  return sum;
}

TEST_F(LoftQ, TakesTheBestOfTheErrorThatTheRankHolds) {
  attach(4, 6);
  EXPECT_EQ(start(), 2);
  for (Linear& linear : linears) {
    const Matrix& error = errors.at(linear.name());
    const double whole = squares(error), best = best_left(error, linear.out_features(), 4);
    EXPECT_GE(left(linear), best * (1 - 1e-4)) << linear.name();
    // The header's promise.
    EXPECT_LE(left(linear) - best, 0.1 * (whole - best)) << linear.name();
    EXPECT_LT(best, 0.8 * whole);
  }
}

TEST_F(LoftQ, AFullRankHoldsAllOfIt) {
  attach(24, 36);
  start();
  EXPECT_LT(left(linears[0]), 1e-9 * squares(errors.at("q_proj")));
}

TEST_F(LoftQ, BothFactorsAreOfOneLength) {
  attach(4, 6);
  start();
  const LoraPair& pair = *linears[0].adapter(0);
  for (int64_t k = 0; k < 4; ++k) {
    double a = 0, b = 0;
    for (int64_t i = 0; i < 64; ++i) a += std::pow(pair.a.variable.value().data<float>()[k * 64 + i], 2);
    for (int64_t o = 0; o < 24; ++o) b += std::pow(pair.b.variable.value().data<float>()[o * 4 + k], 2);
    EXPECT_NEAR(a / b, 1, 1e-4);
  }
}

TEST_F(LoftQ, ThreadsChangeNothing) {
  attach(4, 6);
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 3}) {
    set_threads(threads);
    attach(4, 6);
    start();
    const Tensor& a = linears[1].adapter(0)->a.variable.value();
    results.emplace_back(a.data<float>(), a.data<float>() + a.numel());
  }
  set_threads(0);
  EXPECT_EQ(results[0], results[1]);
}

TEST_F(LoftQ, WhatLostNothingKeepsItsBeginning) {
  originals.weights["q_proj.weight"] = linears[0].weight();  // quantized in the file already
  attach(4, 6);
  const float before = linears[0].adapter(0)->a.variable.value().data<float>()[7];
  EXPECT_EQ(start(), 1);
  EXPECT_EQ(linears[0].adapter(0)->a.variable.value().data<float>()[7], before);
  EXPECT_EQ(linears[0].adapter(0)->b.variable.value().data<float>()[7], 0);
}

// An error of rank one: a component that holds it, the others stay able to learn (A random, B zero).
TEST_F(LoftQ, ComponentsThatHoldNothingCanStillLearn) {
  Tensor w = Tensor::empty(host_allocator(), {24, 64}, kF32, "w");
  quant::decode_rows(linears[0].weight(), 0, 24, w.data<float>());
  for (int64_t i = 0; i < w.numel(); ++i)
    w.data<float>()[i] += 0.01f * static_cast<float>(i / 64 + 1) * static_cast<float>(1 + i % 64 % 5);
  originals.weights["q_proj.weight"] = quant::dense_weight(w);
  Matrix& error = errors.at("q_proj");
  for (int64_t i = 0; i < w.numel(); ++i)
    error[static_cast<size_t>(i)] =
        0.01 * static_cast<double>(i / 64 + 1) * static_cast<double>(1 + i % 64 % 5);
  attach(4, 6);
  start();
  EXPECT_LT(left(linears[0]), 1e-6 * squares(error));
  const LoraPair& pair = *linears[0].adapter(0);
  for (int64_t k = 0; k < 4; ++k) {
    double a = 0;
    for (int64_t i = 0; i < 64; ++i) a += std::pow(pair.a.variable.value().data<float>()[k * 64 + i], 2);
    EXPECT_GT(a, 1e-6) << "component " << k;
  }
}

TEST_F(LoftQ, NeedsAScale) {
  attach(4, 0);
  EXPECT_THAT(message_of([&] { start(); }), HasSubstr("lora_alpha should be above 0"));
}

}  // namespace
}  // namespace nibble::nn
