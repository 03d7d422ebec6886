#include "io/peft_adapter.h"

#include <gmock/gmock.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include "base/file.h"
#include "io/safetensors.h"
#include "tests/io/support.h"

namespace nibble::io {
namespace {

namespace fs = std::filesystem;

AdapterFile small_adapter() {
  AdapterFile f;
  f.config.r = 2;
  f.config.lora_alpha = 4;
  f.config.target_modules = {"q_proj", "v_proj"};
  f.config.base_model = "base";
  f.pairs = {{"model.layers.0.self_attn.q_proj", f32_tensor({2, 3}, {1, 2, 3, 4, 5, 6}),
              f32_tensor({4, 2}, {1, 2, 3, 4, 5, 6, 7, 8})},
             {"model.layers.0.self_attn.v_proj", f32_tensor({2, 3}, {6, 5, 4, 3, 2, 1}),
              f32_tensor({1, 2}, {-1, -2})}};
  f.manifest = {{"model", "abc"}};
  return f;
}

TEST(PeftAdapter, ReadsPeftsFile) {
  const AdapterFile f = read_adapter(golden("tiny_llama/adapter"));
  EXPECT_EQ(f.config.r, 4);
  EXPECT_EQ(f.config.lora_alpha, 8);
  EXPECT_EQ(f.config.base_model, "tiny_llama");
  EXPECT_EQ(f.config.target_modules.size(), 7u);
  ASSERT_EQ(f.pairs.size(), 14u);
  EXPECT_EQ(f.pairs[0].module, "model.layers.0.mlp.down_proj");
  EXPECT_EQ(f.pairs[0].a.shape(), (Shape{4, 112}));
  EXPECT_EQ(f.pairs[0].b.shape(), (Shape{64, 4}));
  EXPECT_TRUE(f.manifest.is_null());
}

TEST(PeftAdapter, ReadsWhatItWrote) {
  TempDir dir;
  AdapterFile f = small_adapter();
  f.config.rank_pattern = {{"v_proj", 2}};
  f.config.alpha_pattern = {{"layers.0.self_attn.v_proj", 7.5}};
  f.config.use_rslora = true;
  f.config.lora_dropout = 0.05;
  write_adapter(dir / "out/", f);
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), fs::directory_iterator()), 1)
      << "no staging is left";
  const AdapterFile g = read_adapter(dir / "out");
  EXPECT_EQ(g.config.rank_pattern, f.config.rank_pattern);
  EXPECT_EQ(g.config.alpha_pattern, f.config.alpha_pattern);
  EXPECT_EQ(g.config.target_modules, f.config.target_modules);
  EXPECT_TRUE(g.config.use_rslora);
  EXPECT_EQ(g.config.lora_dropout, 0.05);
  EXPECT_EQ(g.config.base_model, "base");
  EXPECT_EQ(g.manifest, f.manifest);
  ASSERT_EQ(g.pairs.size(), 2u);
  EXPECT_EQ(floats(g.pairs[1].b), floats(f.pairs[1].b));
}

TEST(PeftAdapter, ReplacesInsideARunDirectoryAndKeepsTheRest) {
  TempDir dir;
  fs::create_directory(dir / "run");
  put_file(dir / "run/metrics.jsonl", "{}");
  AdapterFile f = small_adapter();
  write_adapter(dir / "run", f);
  f.pairs[0].a = f32_tensor({2, 3}, {9, 9, 9, 9, 9, 9});
  write_adapter(dir / "run", f);
  EXPECT_EQ(floats(read_adapter(dir / "run").pairs[0].a)[0], 9);
  EXPECT_EQ(get_file(dir / "run/metrics.jsonl"), "{}");
  EXPECT_FALSE(fs::exists(dir / "run.tmp"));
}

TEST(PeftAdapter, TargetsAreWrittenAsPeftTakesThem) {
  TempDir dir;
  AdapterFile f = small_adapter();
  const auto written = [&](const std::vector<std::string>& targets) {
    f.config.target_modules = targets;
    write_adapter(dir / "out", f);
    return parse_json(get_file(dir / "out/adapter_config.json"), "config")["target_modules"];
  };
  EXPECT_EQ(written({"all-linear"}), Json::array({"q_proj", "v_proj"})) << "what it meant in this model";
  EXPECT_EQ(written({R"(.*\.(q|v)_proj)"}), R"(.*\.(q|v)_proj)");
  EXPECT_EQ(written({"q_proj"}), Json::array({"q_proj"}));
  EXPECT_EQ(written({"q_proj", "v_proj"}), Json::array({"q_proj", "v_proj"}));
}

TEST(PeftAdapter, PatternsMatchAsPeftMatchesThem) {
  AdapterConfig c;
  c.r = 8;
  c.lora_alpha = 16;
  c.rank_pattern = {{"q_proj", 4}, {"layers\\.[01]\\.mlp\\..*", 2}};
  c.alpha_pattern = {{"^model\\.layers\\.0\\.self_attn\\.q_proj", 32}};
  EXPECT_EQ(rank_of(c, "model.layers.0.self_attn.q_proj"), 4);
  EXPECT_EQ(rank_of(c, "model.layers.0.self_attn.xq_proj"), 8) << "only behind a dot";
  EXPECT_EQ(rank_of(c, "model.layers.1.mlp.up_proj"), 2);
  EXPECT_EQ(rank_of(c, "model.layers.2.mlp.up_proj"), 8);
  EXPECT_EQ(rank_of(c, "q_proj"), 4);
  EXPECT_EQ(scale_of(c, "model.layers.0.self_attn.k_proj"), 2.0);
  EXPECT_EQ(scale_of(c, "model.layers.1.self_attn.q_proj"), 4.0);
  c.use_rslora = true;
  EXPECT_EQ(scale_of(c, "model.layers.1.self_attn.q_proj"), 8.0);
  // PEFT takes the first in the order of the file, not the most particular.
  c.rank_pattern = {{"q_proj", 4}, {"layers.1.self_attn.q_proj", 2}};
  EXPECT_EQ(rank_of(c, "model.layers.1.self_attn.q_proj"), 4);
  c.rank_pattern = {{"layers.1.self_attn.q_proj", 2}, {"q_proj", 4}};
  EXPECT_EQ(rank_of(c, "model.layers.1.self_attn.q_proj"), 2);
  c.rank_pattern = {{"(a+)+b", 1}};
  EXPECT_EQ(rank_of(c, std::string(200, 'a')), 8) << "a hostile pattern ends";
  c.rank_pattern = {{"(", 1}};
  EXPECT_ERROR(rank_of(c, "x"), "is no regular expression");
  c.rank_pattern = {{"a{9999}", 1}};
  EXPECT_ERROR(rank_of(c, "x"), "counts with {}");
}

// The written adapter's config with one member changed.
std::string error_with(const char* key, const Json& value) {
  TempDir dir;
  write_adapter(dir / "a", small_adapter());
  Json c = parse_json(read_file(dir / "a/adapter_config.json"), "config");
  c[key] = value;
  put_file(dir / "a/adapter_config.json", c.dump());
  return error_of([&] { read_adapter(dir / "a"); });
}

TEST(PeftAdapter, WhatWouldBeSilentlyWrongIsRefusedByName) {
  const auto has = [](const char* s) { return ::testing::HasSubstr(s); };
  EXPECT_EQ(error_with("use_dora", false), "no error");
  EXPECT_THAT(error_with("use_dora", true), has("uses DoRA"));
  EXPECT_THAT(error_with("peft_type", "LOHA"), has("is an adapter of type LOHA"));
  EXPECT_THAT(error_with("bias", "all"), has("trains biases (bias = \"all\")"));
  EXPECT_THAT(error_with("lora_bias", true), has("a bias on lora_B"));
  EXPECT_THAT(error_with("modules_to_save", Json::array({"lm_head"})), has("modules_to_save"));
  EXPECT_EQ(error_with("fan_in_fan_out", true), "no error");  // A and B are the same either way
  EXPECT_THAT(error_with("layer_replication", Json::array({1})), has("replicated layers"));
  EXPECT_THAT(error_with("init_lora_weights", "pissa"),
              has("was initialised with pissa, which changes the base weights"));
  EXPECT_EQ(error_with("init_lora_weights", "gaussian"), "no error");
  EXPECT_THAT(error_with("r", 3), has("A [2, 3] and B [4, 2] but its rank is 3"));
  EXPECT_THAT(error_with("r", 0), has("\"r\" is 0"));
  EXPECT_THAT(error_with("r", "x"), has("\"r\" should be a whole number"));
  EXPECT_THAT(error_with("lora_dropout", 1.5), has("lora_dropout 1.5"));
  EXPECT_THAT(error_with("rank_pattern", Json{{"q_proj", "x"}}),
              has("has \"x\" for \"q_proj\", expected a number"));
  EXPECT_EQ(error_with("target_modules", "all-linear"), "no error");
}

TEST(PeftAdapter, BadTensorsAreNamed) {
  TempDir dir;
  write_adapter(dir / "a", small_adapter());
  const Tensor a = f32_tensor({2, 3}, {1, 2, 3, 4, 5, 6}), b = f32_tensor({4, 2}, {1, 2, 3, 4, 5, 6, 7, 8});
  const std::string p = "base_model.model.m";
  const auto error_for = [&](const std::vector<std::pair<std::string, Tensor>>& tensors) {
    write_safetensors(dir / "a/adapter_model.safetensors", tensors, {});
    return error_of([&] { read_adapter(dir / "a"); });
  };
  const auto has = [](const char* s) { return ::testing::HasSubstr(s); };
  EXPECT_EQ(error_for({{p + ".lora_A.weight", a}, {p + ".lora_B.weight", b}}), "no error");
  EXPECT_THAT(error_for({}), has("holds no LoRA pair"));
  EXPECT_THAT(error_for({{p + ".lora_A.weight", a}}), has("module m has no lora_B"));
  EXPECT_THAT(error_for({{p + ".lora_B.weight", b}}), has("module m has no lora_A"));
  EXPECT_THAT(error_for({{p + ".lora_A.weight", a}, {p + ".lora_B.weight", a}}),
              has("B [2, 3] but its rank is 2"));
  EXPECT_THAT(error_for({{p + ".lora_magnitude_vector", a}}),
              has("has the tensor \"base_model.model.m.lora_magnitude_vector\""));
  EXPECT_THAT(error_for({{"m.lora_A.weight", a}}), has("has the tensor \"m.lora_A.weight\""));
  EXPECT_THAT(error_for({{p + ".lora_A.weight", f32_tensor({2}, {1, 2})}, {p + ".lora_B.weight", b}}),
              has("expected a matrix"));
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(error_for({{p + ".lora_A.weight", f32_tensor({2, 3}, {1, 2, 3, 4, nan, 6})},
                         {p + ".lora_B.weight", b}}),
              has("lora_A of m holds nan at row 1, column 1"));
}

TEST(PeftAdapter, RefusesToWriteWhatCannotBeReadAndLeavesTheOldOne) {
  TempDir dir;
  AdapterFile f = small_adapter();
  write_adapter(dir / "a", f);
  f.pairs[0].b.data<float>()[3] = std::numeric_limits<float>::infinity();
  EXPECT_ERROR(write_adapter(dir / "a", f), "holds inf at row 1, column 1");
  f = small_adapter();
  f.pairs.clear();
  EXPECT_ERROR(write_adapter(dir / "a", f), "holds no LoRA pair");
  f = small_adapter();
  f.pairs.push_back(f.pairs[0]);
  EXPECT_ERROR(write_adapter(dir / "a", f), "has two pairs");
  EXPECT_EQ(read_adapter(dir / "a").pairs.size(), 2u);
  put_file(dir / "file", "");
  EXPECT_ERROR(write_adapter(dir / "file/a", small_adapter()), "cannot create this directory");
}

TEST(PeftAdapter, MissingFiles) {
  TempDir dir;
  EXPECT_ERROR(read_adapter(dir / "none"), "is no directory");
  EXPECT_ERROR(read_adapter(dir.path()), "holds no adapter_config.json");
  put_file(dir / "adapter_config.json", "{}");
  put_file(dir / "adapter_model.bin", "");
  EXPECT_ERROR(read_adapter(dir.path()), "is a pickle, which is not read");
}

}  // namespace
}  // namespace nibble::io
