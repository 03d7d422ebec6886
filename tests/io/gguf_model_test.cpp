#include <gmock/gmock.h>

#include <cmath>
#include <filesystem>

#include "io/safetensors.h"
#include "io/weights.h"
#include "tests/io/support.h"

namespace nibble::io {
namespace {

TEST(GgufModel, ConfigOfTheTinyModel) {
  const ModelFiles m = open_model(golden("io/tiny.gguf")), hf = open_model(golden("tiny_llama"));
  EXPECT_EQ(m.container, "gguf");
  for (const char* key :
       {"model_type", "architectures", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings",
        "rms_norm_eps", "rope_theta", "tie_word_embeddings", "mlp_bias", "bos_token_id", "eos_token_id"})
    EXPECT_EQ(m.config[key], hf.config[key]) << key;
  EXPECT_EQ(m.config["attention_bias"], true);
  ASSERT_EQ(m.config["rope_scaling"]["rope_type"], "factors");
  const auto factors = m.config["rope_scaling"]["factors"].get<std::vector<double>>();
  ASSERT_EQ(factors.size(), 8u);
  EXPECT_EQ(factors[0], 1.0);
  EXPECT_EQ(factors[7], 8.0);
}

// Every weight of the GGUF against the checkpoint it was made of: the names, shapes and the order of rows.
TEST(GgufModel, WeightsAreTheCheckpointsInItsOrder) {
  const ModelFiles m = open_model(golden("io/tiny.gguf")), hf = open_model(golden("tiny_llama"));
  const auto biases = SafetensorsFile::open(golden("tiny_llama/biases.safetensors"));
  int exact = 0, close = 0, bias = 0;
  for (const WeightInfo& info : m.weights->list()) {
    const quant::Weight w = m.weights->read(info.name);
    const auto got = values_of(w);
    if (info.name.ends_with(".bias")) {
      EXPECT_EQ(got, floats(biases.tensor(info.name))) << info.name;
      ++bias;
      continue;
    }
    const quant::Weight original = hf.weights->read(info.name);
    EXPECT_EQ(w.shape, original.shape);
    const auto want = values_of(original);
    if (info.stored == "BF16" || info.stored == "F32") {
      EXPECT_EQ(got, want) << info.name;
      ++exact;
    } else {
      EXPECT_LT(quant::distortion(want, got).relative, info.stored.starts_with("Q4") ? 0.12 : 0.06)
          << info.name << " " << info.stored;
      ++close;
    }
  }
  EXPECT_EQ(exact, 5 + 4);
  EXPECT_EQ(close, 2 + 2 * 5);
  EXPECT_EQ(bias, 8);
  EXPECT_EQ(m.weights->read("model.layers.0.self_attn.k_proj.weight").interleaved_heads, 2);
  EXPECT_EQ(m.weights->read("model.layers.0.self_attn.v_proj.weight").interleaved_heads, 0);
  EXPECT_FALSE(m.weights->has("rope_freqs.weight"));
  EXPECT_ERROR(m.weights->read("model.layers.9.mlp.up_proj.weight"),
               "has no weight \"model.layers.9.mlp.up_proj.weight\"");
}

// tiny.gguf with the four bytes behind a key's type, or some text, replaced.
class Patched {
 public:
  Patched() : bytes_(get_file(golden("io/tiny.gguf"))) {}
  Patched& u32(const std::string& key, uint32_t value) {
    const size_t at = bytes_.find(key);
    EXPECT_NE(at, std::string::npos) << key;
    std::memcpy(bytes_.data() + at + key.size() + 4, &value, 4);
    return *this;
  }
  Patched& text(const std::string& old, const std::string& instead) {
    EXPECT_EQ(old.size(), instead.size());
    bytes_.replace(bytes_.find(old), old.size(), instead);
    return *this;
  }
  std::string error() const {
    TempDir dir;
    put_file(dir / "x.gguf", bytes_);
    return error_of([&] {
      const ModelFiles m = open_model(dir / "x.gguf");
      for (const WeightInfo& info : m.weights->list()) m.weights->read(info.name);
    });
  }

 private:
  std::string bytes_;
};

// Only Mistral's class slides, in Transformers as here: that is what such a file becomes.
TEST(GgufModel, ASlidingWindowIsMistrals) {
  const TempDir dir;
  std::string bytes = get_file(golden("io/tiny.gguf"));
  std::string pairs;
  const auto pair = [&](const std::string& key, uint32_t value) {
    const uint64_t length = key.size();
    const uint32_t u32_type = 4;
    pairs.append(reinterpret_cast<const char*>(&length), 8).append(key);
    pairs.append(reinterpret_cast<const char*>(&u32_type), 4)
        .append(reinterpret_cast<const char*>(&value), 4);
  };
  pair("llama.attention.sliding_window", 24);
  pair("xy", 0);
  ASSERT_EQ(pairs.size() % 32, 0u) << "what follows stays aligned";
  bytes.insert(24, pairs);
  bytes[16] = static_cast<char>(bytes[16] + 2);
  put_file(dir / "m.gguf", bytes);
  const ModelFiles m = open_model(dir / "m.gguf");
  EXPECT_EQ(m.config["sliding_window"], 24);
  EXPECT_EQ(m.config["model_type"], "mistral");
  EXPECT_EQ(m.config["architectures"], Json::array({"MistralForCausalLM"}));
}

TEST(GgufModel, LyingMetadataIsNamed) {
  const auto has = [](const char* s) { return ::testing::HasSubstr(s); };
  EXPECT_EQ(Patched().error(), "no error");
  EXPECT_THAT(Patched().u32("llama.embedding_length", 65).error(),
              has("token_embd.weight is 64 wide but llama.embedding_length is 65"));
  EXPECT_THAT(Patched().u32("llama.embedding_length", 0).error(), has("llama.embedding_length is 0"));
  EXPECT_THAT(Patched().u32("llama.attention.head_count_kv", 3).error(), has("4 query heads cannot share 3"));
  EXPECT_THAT(Patched().u32("llama.attention.head_count_kv", 0).error(), has("cannot share 0"));
  EXPECT_THAT(Patched().u32("llama.rope.dimension_count", 8).error(), has("rotary positions over 8 of 16"));
  EXPECT_THAT(Patched().u32("llama.block_count", 0xFFFFFFFF).error(), has("llama.block_count is 4294967295"));
  EXPECT_THAT(Patched().text("blk.0.attn_norm", "blk.0.attn_nrom").error(),
              has("has the tensor \"blk.0.attn_nrom.weight\""));
  EXPECT_THAT(Patched().text("token_embd", "token_embx").error(), has("has no matrix token_embd.weight"));
  EXPECT_THAT(Patched().text("llama.context_length", "llama.context_lengtx").error(),
              has("has no metadata key \"llama.context_length\""));
  EXPECT_THAT(Patched()
                  .text("llama.attention.layer_norm_rms_epsilon", "llama.attention.layer_norm_rms_epsilox")
                  .error(),
              has("has no llama.attention.layer_norm_rms_epsilon"));
  std::string architecture(8, '\0');
  architecture[0] = 5;
  EXPECT_THAT(Patched().text(architecture + "llama", architecture + "mamba").error(),
              has("is of the architecture \"mamba\"; GGUF files of llama, qwen2 can be read"));
}

TEST(GgufModel, AnyTruncationIsAnError) {
  const std::string whole = get_file(golden("io/tiny.gguf"));
  TempDir dir;
  for (size_t n = 4; n < whole.size(); n += 331) {
    put_file(dir / "x.gguf", whole.substr(0, n));
    EXPECT_NE(error_of([&] { open_model(dir / "x.gguf"); }), "no error") << n;
  }
}

TEST(GgufModel, SmolLm2) {
  const std::string path = std::string(NIBBLE_SOURCE_DIR) + "/build/models/SmolLM2-135M-Instruct.gguf";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is absent; ./dev demo fetches it";
  const ModelFiles m = open_model(path);
  EXPECT_EQ(m.config["vocab_size"], 49152);
  EXPECT_EQ(m.config["num_hidden_layers"], 30);
  EXPECT_EQ(m.config["head_dim"], 64);
  EXPECT_EQ(m.config["rms_norm_eps"], 1e-5);
  EXPECT_EQ(m.config["rope_theta"], 100000.0);
  EXPECT_EQ(m.config["tie_word_embeddings"], true);
  EXPECT_EQ(m.weights->list().size(), 272u);
  const quant::Weight q = m.weights->read("model.layers.29.self_attn.q_proj.weight");
  EXPECT_EQ(q.shape, (Shape{576, 576}));
  EXPECT_EQ(q.interleaved_heads, 9);
  EXPECT_EQ(m.weights->read("model.layers.29.self_attn.k_proj.weight").interleaved_heads, 3);
}

}  // namespace
}  // namespace nibble::io
