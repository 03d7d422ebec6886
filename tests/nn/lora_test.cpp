#include "nn/lora.h"
#include "tests/message_of.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace nibble::nn {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// A model of a few empty layers.
struct Layers {
  Layers() {
    for (const auto& [name, out, in] :
         std::vector<std::tuple<std::string, int64_t, int64_t>>{{"model.layers.0.self_attn.q_proj", 8, 16},
                                                                {"model.layers.0.mlp.down_proj", 16, 24},
                                                                {"model.layers.1.self_attn.q_proj", 8, 16},
                                                                {"model.layers.11.self_attn.q_proj", 8, 16},
                                                                {"lm_head", 32, 16}})
      linears.emplace_back(name, quant::dense_weight(Tensor::empty(host_allocator(), {out, in}, kF32, "w")),
                           Tensor());
  }
  std::function<void(const LinearVisitor&)> visit() {
    return [this](const LinearVisitor& v) {
      for (Linear& l : linears) v(l);
    };
  }
  std::vector<Linear> linears;
};

// What PEFT 0.21's check_target_module_exists says of the same pairs.
TEST(TargetsModule, FollowsPeft) {
  const std::string q = "model.layers.1.self_attn.q_proj";
  EXPECT_TRUE(targets_module({"q_proj"}, q));
  EXPECT_TRUE(targets_module({"self_attn.q_proj"}, q));
  EXPECT_TRUE(targets_module({"v_proj", "q_proj"}, q));
  EXPECT_TRUE(targets_module({q}, q));
  EXPECT_FALSE(targets_module({"_proj"}, q));
  EXPECT_FALSE(targets_module({"roj"}, q));
  EXPECT_FALSE(targets_module({"layers.1"}, q));
  EXPECT_FALSE(targets_module({"v_proj"}, q));
  EXPECT_TRUE(targets_module({R"(.*\.layers\.[01]\..*q_proj)"}, q));
  EXPECT_FALSE(targets_module({R"(.*\.layers\.[01]\..*q_proj)"}, "model.layers.11.self_attn.q_proj"));
  EXPECT_FALSE(targets_module({R"(layers\.1.*)"}, q)) << "the whole path must match";
  EXPECT_TRUE(targets_module({"all-linear"}, q));
  EXPECT_FALSE(targets_module({"all-linear"}, "lm_head"));
  EXPECT_TRUE(targets_module({"lm_head"}, "lm_head"));
  EXPECT_FALSE(targets_module({}, q));
  EXPECT_THAT(message_of([&] { targets_module({"(.*q_proj"}, q); }),
              HasSubstr("\"(.*q_proj\" is not a regular expression"));
}

TEST(AttachLora, InitialisesAsKaiming) {
  Layers model;
  io::AdapterConfig config;
  config.r = 8;
  config.lora_alpha = 32;
  config.lora_dropout = 0.1;
  config.target_modules = {"all-linear"};
  EXPECT_EQ(attach_lora(model.visit(), config, 3, 42, host_allocator()), 4);
  EXPECT_EQ(model.linears[4].adapter(3), nullptr);
  LoraPair& pair = *model.linears[1].adapter(3);
  EXPECT_EQ(pair.a.name, "model.layers.0.mlp.down_proj.lora_A.weight");
  EXPECT_EQ(pair.a.variable.shape(), (Shape{8, 24}));
  EXPECT_EQ(pair.b.variable.shape(), (Shape{16, 8}));
  EXPECT_EQ(pair.scale, 4);
  EXPECT_FLOAT_EQ(pair.dropout, 0.1f);
  const float bound = 1 / std::sqrt(24.0f), *a = pair.a.variable.value().data<float>();
  double squares = 0;
  for (int i = 0; i < 8 * 24; ++i) {
    EXPECT_LE(std::abs(a[i]), bound);
    squares += double{a[i]} * a[i];
    EXPECT_TRUE(i >= 16 * 8 || pair.b.variable.value().data<float>()[i] == 0);
  }
  EXPECT_NEAR(squares / (8 * 24), double{bound} * bound / 3, 0.15 * bound * bound / 3);
  // Layers differ, and the same seed gives the same values whatever else is attached.
  const float* first = model.linears[0].adapter(3)->a.variable.value().data<float>();
  EXPECT_NE(first[0], model.linears[2].adapter(3)->a.variable.value().data<float>()[0]);
  Layers alone;
  config.target_modules = {"down_proj"};
  attach_lora(alone.visit(), config, 3, 42, host_allocator());
  EXPECT_EQ(alone.linears[1].adapter(3)->a.variable.value().data<float>()[5], a[5]);
}

TEST(AttachLora, PatternsAndRankStabilisation) {
  Layers model;
  io::AdapterConfig config;
  config.r = 4;
  config.lora_alpha = 8;
  config.target_modules = {"q_proj", "down_proj"};
  config.rank_pattern = {{"layers.1.self_attn.q_proj", 2}, {"down_proj", 6}};
  config.alpha_pattern = {{R"(layers\.\d+\.mlp\.down_proj)", 12}};
  attach_lora(model.visit(), config, 0, 1, host_allocator());
  const auto rank = [&](size_t i) { return model.linears[i].adapter(0)->a.variable.size(0); };
  EXPECT_EQ(rank(0), 4);
  EXPECT_EQ(rank(1), 6);
  EXPECT_EQ(rank(2), 2);
  EXPECT_EQ(rank(3), 4) << "layers.1 must not match layers.11";
  EXPECT_EQ(model.linears[1].adapter(0)->scale, 2);
  EXPECT_EQ(model.linears[2].adapter(0)->scale, 4);
  config.use_rslora = true;
  attach_lora(model.visit(), config, 0, 1, host_allocator());
  EXPECT_FLOAT_EQ(model.linears[0].adapter(0)->scale, 4);
}

TEST(AttachLora, ErrorsNameWhatThereIs) {
  Layers model;
  io::AdapterConfig config;
  config.target_modules = {"query"};
  EXPECT_THAT(
      message_of([&] { attach_lora(model.visit(), config, 0, 1, host_allocator()); }),
      HasSubstr("target_modules (query) match no linear layer; this model has q_proj, down_proj, lm_head"));
  config.target_modules = {"q_proj"};
  config.r = 17;
  EXPECT_THAT(message_of([&] { attach_lora(model.visit(), config, 0, 1, host_allocator()); }),
              HasSubstr("rank 17 is above both dimensions of model.layers.0.self_attn.q_proj [8, 16]"));
  config.r = 0;
  EXPECT_THAT(message_of([&] { attach_lora(model.visit(), config, 0, 1, host_allocator()); }),
              HasSubstr("at least 1, got 0"));
}

TEST(AdapterFile, RoundTrip) {
  Layers model, other;
  io::AdapterConfig config;
  config.r = 2;
  config.target_modules = {"q_proj", "down_proj"};
  attach_lora(model.visit(), config, 0, 7, host_allocator());
  const io::AdapterFile file = adapter_file(model.visit(), config, 0);
  ASSERT_EQ(file.pairs.size(), 4u);
  EXPECT_EQ(file.pairs[1].module, "model.layers.0.mlp.down_proj");
  attach_adapter(other.visit(), file, 5, host_allocator());
  for (size_t i = 0; i < 4; ++i) {
    const Tensor a = model.linears[i].adapter(0)->a.variable.value(),
                 b = other.linears[i].adapter(5)->a.variable.value();
    EXPECT_TRUE(std::equal(a.data<float>(), a.data<float>() + a.numel(), b.data<float>()));
    EXPECT_NE(a.raw(), b.raw());
  }
  EXPECT_EQ(other.linears[0].adapter(0), nullptr);
  EXPECT_TRUE(adapter_file(model.visit(), config, 9).pairs.empty());
}

TEST(AdapterFile, OfAnotherModelIsRefusedWhole) {
  Layers model;
  io::AdapterConfig config;
  config.r = 2;
  config.target_modules = {"q_proj"};
  attach_lora(model.visit(), config, 0, 7, host_allocator());
  io::AdapterFile file = adapter_file(model.visit(), config, 0);
  file.pairs.back().module = "model.layers.99.self_attn.q_proj";
  EXPECT_THAT(message_of([&] { attach_adapter(model.visit(), file, 1, host_allocator()); }),
              HasSubstr("\"model.layers.99.self_attn.q_proj\" that this model does not have"));
  EXPECT_EQ(model.linears[0].adapter(1), nullptr);
  file.pairs.back().module = "model.layers.0.mlp.down_proj";
  EXPECT_THAT(
      message_of([&] { attach_adapter(model.visit(), file, 1, host_allocator()); }),
      HasSubstr(
          "A [2, 16] and B [8, 2] do not fit a layer [16, 24]; the adapter was trained on another model"));
  EXPECT_EQ(model.linears[0].adapter(1), nullptr);
}

}  // namespace
}  // namespace nibble::nn
