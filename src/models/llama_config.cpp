#include "models/llama_config.h"

#include "base/error.h"
#include "base/json.h"

namespace nibble::models {
namespace {

constexpr const char* kConfig = "config.json";
constexpr int64_t kMostLayers = 10'000;

int64_t positive(const Json& config, const char* key) {
  const auto n = json_get<int64_t>(config, key, kConfig);
  require(n > 0 && n < int64_t{1} << 31, kConfig, "\"{}\" should be positive, got {}", key, n);
  return n;
}
int64_t positive(const Json& config, const char* key, int64_t otherwise) {
  return config.contains(key) && !config[key].is_null() ? positive(config, key) : otherwise;
}

// Mistral slides everywhere; Qwen2 only when told to, and only in layers from max_window_layers on;
// layer_types, where there is one, says it layer by layer.
std::vector<int64_t> windows_of(const Json& config, const std::string& type, int64_t layers) {
  const int64_t window = positive(config, "sliding_window", 0);
  std::vector<int64_t> windows(static_cast<size_t>(layers), 0);
  if (window == 0 || type == "llama" ||
      (type == "qwen2" && !json_get<bool>(config, "use_sliding_window", false, kConfig)))
    return windows;
  const auto types = json_get<std::vector<std::string>>(config, "layer_types", {}, kConfig);
  require(types.empty() || static_cast<int64_t>(types.size()) == layers, kConfig,
          "\"layer_types\" has {} entries for {} layers", types.size(), layers);
  const int64_t first = type == "qwen2" ? json_get<int64_t>(config, "max_window_layers", 28, kConfig) : 0;
  for (int64_t i = 0; i < layers; ++i) {
    const bool slides = types.empty() ? i >= first : types[static_cast<size_t>(i)] == "sliding_attention";
    if (slides) windows[static_cast<size_t>(i)] = window;
  }
  return windows;
}

}  // namespace

LlamaConfig read_llama_config(const Json& json) {
  LlamaConfig c;
  const auto type = json_get<std::string>(json, "model_type", "llama", kConfig);
  c.family = type;
  c.source = json;
  c.vocab = positive(json, "vocab_size");
  c.width = positive(json, "hidden_size");
  c.layers = positive(json, "num_hidden_layers");
  require(c.layers <= kMostLayers, kConfig, "\"num_hidden_layers\" is {}; at most {} are taken for real",
          c.layers, kMostLayers);
  c.heads = positive(json, "num_attention_heads");
  c.kv_heads = positive(json, "num_key_value_heads", c.heads);
  c.feed_forward = positive(json, "intermediate_size");
  c.max_positions = positive(json, "max_position_embeddings", 2048);
  c.tied_head = json_get<bool>(json, "tie_word_embeddings", false, kConfig);
  require(c.heads % c.kv_heads == 0, kConfig, "{} key/value heads do not divide {} attention heads",
          c.kv_heads, c.heads);
  const bool own_width = json.contains("head_dim") && !json["head_dim"].is_null();
  require(own_width || c.width % c.heads == 0, kConfig, "hidden_size {} cannot be divided into {} heads",
          c.width, c.heads);
  c.head_width = positive(json, "head_dim", c.width / c.heads);
  const auto act = json_get<std::string>(json, "hidden_act", "silu", kConfig);
  require(act == "silu" || act == "swish", kConfig,
          "hidden_act \"{}\" is not supported here; the LLaMA family has \"silu\"", act);
  c.norm_eps = static_cast<float>(json_get<double>(json, "rms_norm_eps", 1e-6, kConfig));
  require(c.norm_eps > 0 && c.norm_eps < 1, kConfig, "rms_norm_eps should be a small positive number, got {}",
          c.norm_eps);
  const bool llama = type == "llama";
  c.o_bias = llama && json_get<bool>(json, "attention_bias", false, kConfig);
  c.qkv_bias = c.o_bias || type == "qwen2";
  c.mlp_bias = llama && json_get<bool>(json, "mlp_bias", false, kConfig);
  c.rope = nn::RopeSpec::from_config(json, c.head_width, c.max_positions);
  c.windows = windows_of(json, type, c.layers);
  return c;
}

}  // namespace nibble::models
