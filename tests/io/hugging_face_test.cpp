#include <gmock/gmock.h>

#include <filesystem>

#include "base/file.h"
#include "io/safetensors.h"
#include "io/weights.h"
#include "tests/io/support.h"

namespace nibble::io {
namespace {

namespace fs = std::filesystem;

// A copy of the tiny checkpoint whose config is changed.
void copy_tiny(const TempDir& dir, const std::function<void(Json&)>& change,
               const std::string& from = "tiny_llama") {
  Json config = parse_json(read_file(golden(from + "/config.json")), "config");
  change(config);
  put_file(dir / "config.json", config.dump());
  fs::copy_file(golden(from + "/model.safetensors"), dir / "model.safetensors");
}

TEST(HuggingFace, DenseDirectory) {
  const ModelFiles m = open_model(golden("tiny_llama"));
  EXPECT_EQ(m.container, "safetensors");
  EXPECT_EQ(m.config["hidden_size"], 64);
  const auto list = m.weights->list();
  ASSERT_EQ(list.size(), 21u);
  EXPECT_EQ(list[0].stored, "BF16");
  const auto layer = m.root() / "model" / "layers" / 1;
  const quant::Weight w = (layer / "mlp" / "down_proj").read("weight", {64, 112});
  EXPECT_TRUE(w.is_dense());
  EXPECT_EQ(w.logical_dtype, kBF16);
  EXPECT_EQ((layer / "mlp").path(), "model.layers.1.mlp");
  EXPECT_TRUE(m.weights->has("lm_head.weight"));
  EXPECT_FALSE(m.weights->has("lm_head.bias"));
  EXPECT_ERROR(
      (layer / "mlp" / "down_proj").read("weight", {64, 64}),
      "[model.layers.1.mlp.down_proj.weight] is [64, 112] in the file but this model expects [64, 64]");
  EXPECT_ERROR(m.weights->read("model.layers.0.mlp.down_proj.wieght"),
               "the nearest is \"model.layers.0.mlp.down_proj.weight\"");
}

TEST(HuggingFace, ForgottenWeightsReadTheSameAgain) {
  const ModelFiles m = open_model(golden("tiny_llama"));
  const std::string name = "model.embed_tokens.weight";
  const auto before = values_of(m.weights->read(name));
  m.weights->forget(name);
  m.weights->forget("no such name");
  EXPECT_EQ(values_of(m.weights->read(name)), before);
}

TEST(HuggingFace, OneFileWithItsConfig) {
  EXPECT_EQ(open_model(golden("tiny_llama/model.safetensors")).weights->list().size(), 21u);
  TempDir dir;
  fs::copy_file(golden("tiny_llama/model.safetensors"), dir / "x.safetensors");
  EXPECT_ERROR(open_model(dir / "x.safetensors"), "config.json is expected beside it");
}

TEST(HuggingFace, DoublyQuantizedCheckpointOfTransformers) {
  const ModelFiles m = open_model(golden("tiny_llama/nf4")), dense = open_model(golden("tiny_llama"));
  EXPECT_EQ(m.config["rope_theta"], 10000.0) << "taken from rope_parameters";
  EXPECT_TRUE(m.config["rope_scaling"].is_null());
  const std::string name = "model.layers.0.mlp.gate_proj.weight";
  const auto list = m.weights->list();
  EXPECT_EQ(list.size(), 21u);
  for (const WeightInfo& info : list)
    if (info.name == name) {
      EXPECT_EQ(info.stored, "nf4 + double quantization, block 64");
      EXPECT_EQ(info.shape, (Shape{112, 64}));
      EXPECT_GT(info.bytes, 112 * 64 / 2 + 112);
    }
  const quant::Weight w = m.weights->read(name);
  EXPECT_EQ(w.shape, (Shape{112, 64}));
  EXPECT_TRUE(w.double_quantized());
  const auto d = quant::distortion(values_of(dense.weights->read(name)), values_of(w));
  EXPECT_LT(d.relative, 0.1);
  EXPECT_GT(d.relative, 0.05);
}

TEST(HuggingFace, Int8RowsDecodeToBitsandbytesValues) {
  const ModelFiles m = open_model(golden("io/int8"));
  const auto values = SafetensorsFile::open(golden("io/int8/values.safetensors"));
  ASSERT_EQ(m.weights->list().size(), 3u);
  for (const auto& e : values.entries) {
    const quant::Weight w = m.weights->read(e.name);
    EXPECT_EQ(w.describe(), "int8");
    const auto got = values_of(w), want = floats(values.tensor(e.name));
    // bitsandbytes rounds its decoded values to f16 for f16 weights; nibble keeps f32.
    for (size_t i = 0; i < got.size(); ++i)
      ASSERT_NEAR(got[i], want[i], 1e-3 * std::abs(want[i]) + 1e-7) << i;
  }
}

// A bnb checkpoint with one of its tensors replaced (or removed, when undefined).
void copy_nf4_with(const TempDir& dir, const std::string& name, const Tensor& instead) {
  fs::copy_file(golden("tiny_llama/nf4/config.json"), dir / "config.json",
                fs::copy_options::overwrite_existing);
  const auto file = SafetensorsFile::open(golden("tiny_llama/nf4/model.safetensors"));
  std::vector<std::pair<std::string, Tensor>> out;
  for (const auto& e : file.entries) {
    if (e.name != name)
      out.emplace_back(e.name, file.tensor(e.name));
    else if (instead.defined())
      out.emplace_back(name, instead);
  }
  write_safetensors(dir / "model.safetensors", out, {});
}

Tensor state_with(const std::string& json) {
  Tensor t = Tensor::empty(host_allocator(), {static_cast<int64_t>(json.size())}, kU8, "state");
  std::memcpy(t.raw(), json.data(), json.size());
  return t;
}

TEST(HuggingFace, LyingQuantizedPartsAreNamed) {
  TempDir dir;
  const std::string w = "model.layers.0.self_attn.q_proj.weight",
                    state = w + ".quant_state.bitsandbytes__nf4";
  const auto error_with = [&](const std::string& part, const Tensor& instead) {
    copy_nf4_with(dir, part, instead);
    return error_of([&] { open_model(dir.path()); });
  };
  const auto HasSubstr = [](const char* s) { return ::testing::HasSubstr(s); };
  EXPECT_THAT(error_with(w + ".absmax", {}),
              HasSubstr("its part \"model.layers.0.self_attn.q_proj.weight.absmax\" is missing"));
  EXPECT_THAT(error_with(w + ".nested_absmax", {}), HasSubstr("nested_absmax\" is missing"));
  EXPECT_THAT(error_with(w + ".nested_absmax", f32_tensor({2}, {1, 2})), HasSubstr("nested_absmax"));
  EXPECT_THAT(error_with(w + ".quant_map", f32_tensor({16}, std::vector<float>(16, 0.5f))),
              HasSubstr("its quant_map is not nf4's: entry 0 is 0.5"));
  EXPECT_THAT(error_with(w, f32_tensor({4}, {1, 2, 3, 4})), HasSubstr("the codes"));
  EXPECT_THAT(error_with(w, {}), HasSubstr("but not the weight"));
  const std::string rest =
      R"("dtype":"bfloat16","nested_blocksize":256,"nested_dtype":"float32","nested_offset":0.4)";
  struct {
    std::string json;
    const char* message;
  } states[] = {
      {R"({"quant_type":"nf4","blocksize":64,"shape":[128,64],)" + rest + "}", "the codes"},
      {R"({"quant_type":"nf4","blocksize":64,"shape":[4294967296,4294967296],)" + rest + "}",
       "impossible shape"},
      {R"({"quant_type":"nf4","blocksize":64,"shape":[-64,-64],)" + rest + "}", "impossible shape"},
      {R"({"quant_type":"nf4","blocksize":64,"shape":[],)" + rest + "}", "impossible shape"},
      {R"({"quant_type":"nf4","blocksize":0,"shape":[64,64],)" + rest + "}", "its blocksize is 0"},
      {R"({"quant_type":"nf4","blocksize":48,"shape":[64,64],)" + rest + "}", "its blocksize is 48"},
      {R"({"quant_type":"nf4","blocksize":128,"shape":[64,64],)" + rest + "}", "absmax"},
      {R"({"quant_type":"af4","blocksize":64,"shape":[64,64],)" + rest + "}", "its quant_type is \"af4\""},
      {R"({"quant_type":"nf4","blocksize":64,"shape":[64,64],"dtype":"int8"})", "names dtype \"int8\""},
      {R"({"quant_type":"nf4","blocksize":64,"shape":[64,64],"dtype":"float32","nested_blocksize":64,"nested_dtype":"float32","nested_offset":0.4})",
       "blocks of 64 in float32"},
      {R"({"quant_type":"nf4")", "not valid JSON"},
  };
  for (const auto& s : states)
    EXPECT_THAT(error_with(state, state_with(s.json)), HasSubstr(s.message)) << s.json;
}

TEST(HuggingFace, Shards) {
  TempDir dir;
  const auto file = SafetensorsFile::open(golden("tiny_llama/model.safetensors"));
  std::vector<std::pair<std::string, Tensor>> parts[2];
  Json map;
  for (size_t i = 0; i < file.entries.size(); ++i) {
    const std::string& name = file.entries[i].name;
    parts[i % 2].emplace_back(name, file.tensor(name));
    map[name] = fmt::format("model-{}.safetensors", i % 2);
  }
  write_safetensors(dir / "model-0.safetensors", parts[0], {});
  write_safetensors(dir / "model-1.safetensors", parts[1], {});
  fs::copy_file(golden("tiny_llama/config.json"), dir / "config.json");
  const auto index = [&](const Json& weight_map) {
    put_file(dir / "model.safetensors.index.json", Json{{"weight_map", weight_map}}.dump());
  };
  index(map);
  const ModelFiles m = open_model(dir.path());
  EXPECT_EQ(m.files.size(), 2u);
  EXPECT_EQ(m.weights->list().size(), 21u);
  EXPECT_EQ(values_of(m.weights->read("lm_head.weight")),
            values_of(open_model(golden("tiny_llama")).weights->read("lm_head.weight")));

  map["x"] = "model-2.safetensors";
  index(map);
  EXPECT_ERROR(open_model(dir.path()), "model-2.safetensors, which is missing; is the download complete?");
  map["x"] = "../model-0.safetensors";
  index(map);
  EXPECT_ERROR(open_model(dir.path()), "shards lie beside the index");
  map["x"] = 7;
  index(map);
  EXPECT_ERROR(open_model(dir.path()), "should map \"x\" to a file name");
  index(Json::object());
  EXPECT_ERROR(open_model(dir.path()), "\"weight_map\" is empty");
  put_file(dir / "model.safetensors.index.json", "{\"weight_map\": [");
  EXPECT_ERROR(open_model(dir.path()), "is no shard index");
  index({{"lm_head.weight", "model-0.safetensors"}, {"x", "model-1.safetensors"}});
  fs::copy_file(dir / "model-0.safetensors", dir / "model-1.safetensors",
                fs::copy_options::overwrite_existing);
  EXPECT_ERROR(open_model(dir.path()), "is in two shards");
}

TEST(HuggingFace, WhatIsNoModelIsNamed) {
  TempDir dir;
  EXPECT_ERROR(open_model(dir / "none"), "no such file or directory");
  EXPECT_ERROR(open_model(dir.path()), "holds no config.json");
  put_file(dir / "adapter_config.json", "{}");
  EXPECT_ERROR(open_model(dir.path()), "it holds an adapter");
  fs::remove(dir / "adapter_config.json");
  put_file(dir / "config.json", "{}");
  EXPECT_ERROR(open_model(dir.path()), "holds no model.safetensors and no model.safetensors.index.json");
  put_file(dir / "pytorch_model.bin", "PK\3\4");
  EXPECT_ERROR(open_model(dir.path()), "PyTorch pickles are not read");
  EXPECT_ERROR(open_model(dir / "pytorch_model.bin"), "is a PyTorch pickle");
  put_file(dir / "x.gguf", "GGU");
  EXPECT_ERROR(open_model(dir / "x.gguf"), "does not start with \"GGUF\"");
  put_file(dir / "x.txt", "abc");
  EXPECT_ERROR(open_model(dir / "x.txt"), "is no container known here");
  put_file(dir / "config.json", "[1]");
  EXPECT_ERROR(open_model(dir.path()), "should be a JSON object");
  put_file(dir / "config.json", "{");
  EXPECT_ERROR(open_model(dir.path()), "is not valid JSON at line 1");
}

TEST(HuggingFace, OtherQuantizationsAreRefusedByName) {
  for (const char* method : {"gptq", "awq", "fp8", "compressed-tensors"}) {
    TempDir dir;
    copy_tiny(dir, [&](Json& c) { c["quantization_config"] = {{"quant_method", method}}; });
    EXPECT_ERROR(open_model(dir.path()), fmt::format("quantized with {}, which cannot be read", method));
  }
  TempDir dir;
  copy_tiny(dir, [](Json& c) { c["quantization_config"] = {{"load_in_4bit", true}}; });
  EXPECT_NO_THROW(open_model(dir.path())) << "as bitsandbytes wrote it before quant_method existed";
}

TEST(HuggingFace, RopeParametersOfTransformers5) {
  TempDir dir;
  copy_tiny(dir, [](Json& c) {
    c.erase("rope_theta");
    c.erase("rope_scaling");
    c["rope_parameters"] = {{"rope_theta", 5e5}, {"rope_type", "linear"}, {"factor", 2.0}};
  });
  const ModelFiles m = open_model(dir.path());
  EXPECT_EQ(m.config["rope_theta"], 5e5);
  EXPECT_EQ(m.config["rope_scaling"]["factor"], 2.0);
}

TEST(ModelHash, ChangesWithTheContentAlone) {
  TempDir a, b;
  copy_tiny(a, [](Json&) {});
  copy_tiny(b, [](Json& c) { c["x"] = 1; });
  const std::string hash = open_model(a.path()).hash();
  EXPECT_EQ(hash.size(), 32u);
  EXPECT_EQ(open_model(b.path()).hash(), hash);
  std::string bytes = get_file(b / "model.safetensors");
  bytes.back() ^= 1;
  put_file(b / "model.safetensors", bytes);
  EXPECT_NE(open_model(b.path()).hash(), hash);
}

}  // namespace
}  // namespace nibble::io
