#include "nn/loader.h"
#include "tests/message_of.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace nibble::nn {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Weights in memory; remembers what was let go of.
class Memory : public io::WeightSource {
 public:
  void put(const std::string& name, const Shape& shape, float value, DType dtype = kF32) {
    Tensor t = Tensor::empty(host_allocator(), shape, dtype, name);
    for (int64_t i = 0; i < t.numel(); ++i) {
      const float v = value + 0.01f * static_cast<float>(i % 7);
      if (dtype == kF32) {
        t.data<float>()[i] = v;
      } else {
        t.data<BFloat16>()[i] = to_bf16(v);
      }
    }
    weights[name] = quant::dense_weight(t);
  }
  bool has(const std::string& name) const override { return weights.contains(name); }
  quant::Weight read(const std::string& name) const override {
    require(has(name), "memory", "there is no {}", name);
    return weights.at(name);
  }
  std::vector<io::WeightInfo> list() const override { return {}; }
  void forget(const std::string& name) const override { forgotten.push_back(name); }

  std::map<std::string, quant::Weight> weights;
  mutable std::vector<std::string> forgotten;
};

struct Loading : testing::Test {
  Loading() : stream(host_allocator()), source(std::make_shared<Memory>()) {
    backend::register_cpu_kernels();
    source->put("a.q_proj.weight", {8, 64}, 1);
    source->put("a.q_proj.bias", {8}, 2);
    source->put("a.k_proj.weight", {8, 64}, 3, kBF16);
    source->put("embed.weight", {16, 64}, 4);
  }
  Loader loader() { return {io::ScopedWeights(source), stream, options}; }
  float& at(const std::string& name, int64_t i) { return source->weights[name].dense.data<float>()[i]; }

  backend::Stream stream;
  LoadOptions options;
  std::shared_ptr<Memory> source;
};

TEST_F(Loading, ScopesQuantizesAndLetsGo) {
  options.quantize = quant::parse_quantize("nf4", true, 64);
  std::vector<std::string> seen;
  options.progress = [&](const std::string& name, int64_t) { seen.push_back(name); };
  const Linear q = (loader() / "a" / "q_proj").linear(64, 8, true);
  EXPECT_EQ(q.name(), "a.q_proj");
  EXPECT_TRUE(q.weight().double_quantized());
  EXPECT_EQ(q.bias().data<float>()[1], 2.01f);
  const quant::Weight table = (loader() / "embed").table("weight", 16, 64);
  EXPECT_TRUE(table.is_dense()) << "an embedding is never quantized";
  EXPECT_EQ(table.dense.dtype(), kBF16);
  EXPECT_THAT(seen, ElementsAre("a.q_proj.weight", "embed.weight"));
  EXPECT_THAT(source->forgotten, ElementsAre("a.q_proj.weight", "embed.weight"));
}

TEST_F(Loading, WhatNeedsNoConversionStaysInTheFile) {
  options.dense_dtype = kBF16;
  const Linear k = (loader() / "a" / "k_proj").linear(64, 8, false);
  EXPECT_EQ(k.weight().dense.raw(), source->weights["a.k_proj.weight"].dense.raw());
  EXPECT_TRUE(source->forgotten.empty());
}

TEST_F(Loading, ShapesOnlyOnTheMetaDevice) {
  const auto memory = make_meta_allocator();
  backend::Stream meta(*memory);
  options.quantize = quant::parse_quantize("nf4", true, 64);
  const Linear q = (Loader(io::ScopedWeights(source), meta, options) / "a" / "q_proj").linear(64, 8, true);
  EXPECT_EQ(q.weight().codes.raw(), nullptr);
  EXPECT_EQ(q.weight().stored_bytes(),
            (loader() / "a" / "q_proj").linear(64, 8, true).weight().stored_bytes());
  EXPECT_EQ(q.bias().raw(), nullptr);
}

TEST_F(Loading, RefusesWhatIsWrong) {
  const auto q = [&](bool bias, int64_t in = 64) {
    return message_of([&] { (loader() / "a" / "q_proj").linear(in, 8, bias); });
  };
  EXPECT_EQ(q(true), "no error");
  EXPECT_THAT(q(false), HasSubstr("[a.q_proj.bias] is in the file, but config.json says there is none"));
  EXPECT_THAT(q(true, 32), HasSubstr("[8, 32]"));
  EXPECT_THAT(message_of([&] { (loader() / "a" / "k_proj").linear(64, 8, true); }),
              HasSubstr("a.k_proj.bias"));
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    at("a.q_proj.weight", 5 * 64 + 3) = bad;
    for (const char* format : {"none", "nf4", "int8"}) {
      options.quantize = quant::parse_quantize(format, false, 64);
      EXPECT_THAT(q(true), HasSubstr("[a.q_proj.weight] row 5 holds a NaN or an infinity"));
    }
  }
  at("a.q_proj.weight", 5 * 64 + 3) = 0;
  at("a.q_proj.bias", 2) = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(q(true), HasSubstr("[a.q_proj.bias] holds a NaN or an infinity"));
}

TEST_F(Loading, QuantizedWeightsWithBadScalesAreRefused) {
  const std::vector<float> values(512, 0.5f);
  quant::Weight w = quant::encode(quant::find_format("nf4"), values, {8, 64}, 64, true);
  w.nested_offset = std::numeric_limits<float>::infinity();
  source->weights["a.k_proj.weight"] = w;
  options.quantize = quant::parse_quantize("stored", false, 64);
  EXPECT_THAT(message_of([&] { (loader() / "a" / "k_proj").linear(64, 8, false); }),
              HasSubstr("[a.k_proj.weight] row 0 holds a NaN or an infinity"));
}

TEST_F(Loading, FullFineTuningDecodesAMaster) {
  options.quantize = quant::parse_quantize("nf4", false, 64);
  Linear q = (loader() / "a" / "q_proj").linear(64, 8, true);
  std::vector<float> expected(512);
  quant::decode_rows(q.weight(), 0, 8, expected.data());
  EXPECT_EQ(q.weight_parameter(), nullptr);
  q.make_trainable(host_allocator());
  q.make_trainable(host_allocator());  // again changes nothing
  ASSERT_NE(q.weight_parameter(), nullptr);
  EXPECT_EQ(q.weight_parameter()->name, "a.q_proj.weight");
  EXPECT_EQ(q.bias_parameter()->name, "a.q_proj.bias");
  const Tensor master = q.weight_parameter()->variable.value();
  EXPECT_EQ(q.weight().dense.raw(), master.raw()) << "the weight is the parameter";
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), master.data<float>()));
}

}  // namespace
}  // namespace nibble::nn
