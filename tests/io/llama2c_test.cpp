#include <gmock/gmock.h>

#include <cstring>
#include <filesystem>

#include "io/weights.h"
#include "tests/io/support.h"

namespace nibble::io {
namespace {

// dim 4, hidden 3, one layer, two heads of width 2 over one key head, vocabulary 5, two positions.
struct Small {
  std::vector<int32_t> header{4, 3, 1, 2, 1, 5, 2};
  std::vector<float> values;
  explicit Small(bool tied = true) {
    const int n = 5 * 4 + 4 + 16 + 8 + 8 + 16 + 4 + 12 + 12 + 12 + 4 + 2 * 2 + (tied ? 0 : 20);
    if (!tied) header[5] = -5;
    for (int i = 0; i < n; ++i) values.push_back(static_cast<float>(i));
  }
  std::string bytes() const { return bytes_of(header) + bytes_of(values); }
};

ModelFiles open_small(const TempDir& dir, const std::string& bytes) {
  put_file(dir / "x.bin", bytes);
  return open_model(dir / "x.bin");
}

std::vector<float> row(const ModelFiles& m, const std::string& name, int64_t r) {
  const quant::Weight w = m.weights->read(name);
  std::vector<float> v(static_cast<size_t>(w.cols()));
  quant::decode_rows(w, r, r + 1, v.data());
  return v;
}

TEST(Llama2c, PlacesEveryTensor) {
  TempDir dir;
  const ModelFiles m = open_small(dir, Small().bytes());
  EXPECT_EQ(m.container, "llama2.c");
  EXPECT_EQ(m.config["num_key_value_heads"], 1);
  EXPECT_EQ(m.config["tie_word_embeddings"], true);
  EXPECT_FALSE(m.weights->has("lm_head.weight"));
  EXPECT_EQ(row(m, "model.embed_tokens.weight", 4)[0], 16);
  EXPECT_EQ(row(m, "model.layers.0.input_layernorm.weight", 0)[0], 20);
  EXPECT_EQ(row(m, "model.layers.0.self_attn.q_proj.weight", 0)[0], 24);
  EXPECT_EQ(row(m, "model.layers.0.self_attn.k_proj.weight", 0)[0], 40);
  EXPECT_EQ(row(m, "model.layers.0.self_attn.v_proj.weight", 0)[0], 48);
  EXPECT_EQ(row(m, "model.layers.0.self_attn.o_proj.weight", 0)[0], 56);
  EXPECT_EQ(row(m, "model.layers.0.post_attention_layernorm.weight", 0)[0], 72);
  EXPECT_EQ(row(m, "model.layers.0.mlp.gate_proj.weight", 0)[0], 76);
  EXPECT_EQ(row(m, "model.layers.0.mlp.down_proj.weight", 1)[0], 91);
  EXPECT_EQ(row(m, "model.layers.0.mlp.up_proj.weight", 0)[0], 100);
  EXPECT_EQ(row(m, "model.norm.weight", 0)[0], 112);
  const ModelFiles untied = open_small(dir, Small(false).bytes());
  EXPECT_EQ(untied.config["tie_word_embeddings"], false);
  EXPECT_EQ(untied.config["vocab_size"], 5);
  EXPECT_EQ(row(untied, "lm_head.weight", 0)[0], 120);
}

TEST(Llama2c, RotaryPairsComeOutInHalves) {
  TempDir dir;
  Small s;
  s.header = {8, 3, 1, 1, 1, 5, 2};  // one head of width 8
  s.values.resize(5 * 8 + 8 + 64 * 4 + 8 + 24 * 3 + 8 + 16);
  for (size_t i = 0; i < s.values.size(); ++i) s.values[i] = static_cast<float>(i);
  const ModelFiles m = open_small(dir, s.bytes());
  // Stored rows 0 2 4 6 are the first halves of the pairs, 1 3 5 7 the second.
  const float first = 5 * 8 + 8;
  for (int64_t r = 0; r < 8; ++r) {
    const int64_t stored = r < 4 ? 2 * r : 2 * (r - 4) + 1;
    EXPECT_EQ(row(m, "model.layers.0.self_attn.q_proj.weight", r)[0], first + static_cast<float>(8 * stored));
    EXPECT_EQ(row(m, "model.layers.0.self_attn.v_proj.weight", r)[0],
              first + 128 + static_cast<float>(8 * r));
  }
}

TEST(Llama2c, LyingHeadersAreNamed) {
  TempDir dir;
  const auto error_with = [&](int field, int32_t value) {
    Small s;
    s.header[static_cast<size_t>(field)] = value;
    return error_of([&] { open_small(dir, s.bytes()); });
  };
  const auto has = [](const char* s) { return ::testing::HasSubstr(s); };
  EXPECT_THAT(error_with(0, 0), has("its header says dim = 0"));
  EXPECT_THAT(error_with(2, -1), has("its header says n_layers = -1"));
  EXPECT_THAT(error_with(5, INT32_MIN), has("its header says vocab_size = -2147483648"));
  EXPECT_THAT(error_with(3, 3), has("which do not go together"));
  EXPECT_THAT(error_with(4, 3), has("which do not go together"));
  EXPECT_THAT(error_with(2, 2), has("is it cut off, or no llama2.c checkpoint?"));
  EXPECT_THAT(error_with(2, INT32_MAX), has("is it cut off"));
  EXPECT_THAT(error_with(1, INT32_MAX), has("is it cut off"));
  Small huge;
  huge.header = {2147483646, INT32_MAX, INT32_MAX, 1, 1, INT32_MAX, INT32_MAX};
  EXPECT_ERROR(open_small(dir, huge.bytes()), "impossible size");
  EXPECT_ERROR(open_small(dir, Small().bytes().substr(0, 27)), "too short for a llama2.c checkpoint");
  EXPECT_ERROR(open_small(dir, Small().bytes() + "x"), "is it cut off, or no llama2.c checkpoint?");
  Small version;
  version.header[0] = 0x616B3432;
  EXPECT_ERROR(open_small(dir, version.bytes()), "version 1 or later");
}

TEST(Llama2c, Stories260K) {
  const std::string path =
      std::string(NIBBLE_SOURCE_DIR) + "/../shared/data/models/stories260K/stories260K.bin";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is absent";
  const ModelFiles m = open_model(path);
  EXPECT_EQ(m.config["hidden_size"], 64);
  EXPECT_EQ(m.config["vocab_size"], 512);
  EXPECT_EQ(m.config["max_position_embeddings"], 512);
  int64_t parameters = 0;
  for (const WeightInfo& w : m.weights->list()) parameters += w.shape.numel();
  EXPECT_EQ(parameters, 260032);
}

}  // namespace
}  // namespace nibble::io
