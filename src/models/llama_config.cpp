#include "models/llama_config.h"

#include <cmath>

#include "models/config_keys.h"

namespace nibble::models {
namespace {

// Which layers slide when layer_types does not say so.
bool slides_by_default(const Json& config, const std::string& type, int64_t layer) {
  if (type == "mistral" || type == "phi3") return true;
  if (type == "qwen2" || type == "qwen3")
    return layer >= json_get<int64_t>(config, "max_window_layers", 28, kConfig);
  if (type == "gemma2") return layer % 2 == 0;
  return type == "gemma3_text" && (layer + 1) % positive(config, "sliding_window_pattern", 6) != 0;
}

void read_windows(const Json& config, LlamaConfig& c) {
  const std::string& type = c.family;
  const auto types = json_get<std::vector<std::string>>(config, "layer_types", {}, kConfig);
  require(types.empty() || static_cast<int64_t>(types.size()) == c.layers, kConfig,
          "\"layer_types\" has {} entries for {} layers", types.size(), c.layers);
  const bool never =
      type == "llama" || type == "gemma" ||
      (type.starts_with("qwen") && !json_get<bool>(config, "use_sliding_window", false, kConfig));
  // Transformers' defaults for a missing key; null is no window.
  const int64_t missing = type == "phi3" || config.contains("sliding_window") ? 0 : 4096;
  const int64_t window = never ? 0 : positive(config, "sliding_window", missing);
  for (int64_t i = 0; i < c.layers; ++i) {
    const bool slides = types.empty() ? slides_by_default(config, type, i)
                                      : types[static_cast<size_t>(i)] == "sliding_attention";
    c.windows.push_back(slides ? window : 0);
    c.rope_of.push_back(slides ? c.ropes.size() - 1 : 0);
  }
}

// Gemma 3 has two bases; Transformers 5 writes the settings of each kind of layer apart.
void read_gemma3_ropes(const Json& config, LlamaConfig& c) {
  const auto of = [&](const char* kind, double theta) {
    Json one = {{"rope_theta", theta}};
    if (!config.contains("rope_parameters") || !config["rope_parameters"].is_object() ||
        !config["rope_parameters"].contains(kind))
      return one;
    const Json& given = config["rope_parameters"][kind];
    if (given.is_object()) one["rope_theta"] = json_get<double>(given, "rope_theta", theta, kConfig);
    one["rope_scaling"] = given;
    return one;
  };
  Json global = of("full_attention", json_get<double>(config, "rope_theta", 1e6, kConfig));
  const bool classic = config.contains("rope_scaling") && config["rope_scaling"].is_object() &&
                       !config["rope_scaling"].contains("full_attention");
  if (classic) global["rope_scaling"] = config["rope_scaling"];
  const Json local = of("sliding_attention", json_get<double>(config, "rope_local_base_freq", 1e4, kConfig));
  for (const Json& rope : {global, local})
    c.ropes.push_back(nn::RopeSpec::from_config(rope, c.head_width, c.max_positions));
}

void read_gemma(const Json& json, LlamaConfig& c) {
  const bool first = c.family == "gemma", third = c.family == "gemma3_text";
  require(!json_get<bool>(json, "use_bidirectional_attention", false, kConfig), kConfig,
          "use_bidirectional_attention is set; this model is an encoder, not a language model");
  c.norm_offset = 1;
  c.embedding_scale = std::sqrt(static_cast<float>(c.width));
  // Gemma 1's "hidden_act" says gelu where the tanh form is meant; "hidden_activation" came later.
  c.activation = activation_named(json, "hidden_activation", "gelu_pytorch_tanh");
  if (first) return;
  c.sandwich = true;
  c.head_norms = third;
  const auto scalar = json_get<double>(json, "query_pre_attn_scalar", 256, kConfig);
  require(scalar > 0, kConfig, "query_pre_attn_scalar should be positive, got {}", scalar);
  c.score_scale = static_cast<float>(1 / std::sqrt(scalar));
  const auto cap = [&](const char* key, double otherwise) {
    const bool none = json.contains(key) && json[key].is_null();
    const double value = none ? 0 : json_get<double>(json, key, otherwise, kConfig);
    require(value >= 0 && std::isfinite(value), kConfig, "{} should be positive, got {}", key, value);
    return static_cast<float>(value);
  };
  if (!third) c.score_cap = cap("attn_logit_softcapping", 50);
  c.logit_cap = cap("final_logit_softcapping", third ? 0 : 30);
}

}  // namespace

LlamaConfig read_llama_config(const Json& json) {
  LlamaConfig c;
  c.family = json_get<std::string>(json, "model_type", "llama", kConfig);
  c.source = json;
  c.vocab = positive(json, "vocab_size");
  c.width = positive(json, "hidden_size");
  c.layers = layer_count(json, "num_hidden_layers");
  c.heads = positive(json, "num_attention_heads");
  const bool gemma = c.family.starts_with("gemma"), phi3 = c.family == "phi3", qwen3 = c.family == "qwen3";
  c.kv_heads = positive(json, "num_key_value_heads", c.heads);
  c.feed_forward = positive(json, "intermediate_size");
  c.max_positions = positive(json, "max_position_embeddings", 2048);
  c.tied_head = json_get<bool>(json, "tie_word_embeddings", gemma, kConfig);
  require(c.heads % c.kv_heads == 0, kConfig, "{} key/value heads do not divide {} attention heads",
          c.kv_heads, c.heads);
  const bool own_width = json.contains("head_dim") && !json["head_dim"].is_null();
  c.head_width = own_width ? positive(json, "head_dim")
                 : gemma   ? 256
                 : qwen3   ? 128
                           : divided_width(c.width, c.heads);
  c.score_scale = 1.0f / std::sqrt(static_cast<float>(c.head_width));
  c.norm_eps = norm_epsilon(json, "rms_norm_eps", phi3 ? 1e-5 : 1e-6);
  const bool qwen2 = c.family == "qwen2", mistral = c.family == "mistral";
  c.o_bias = !qwen2 && !phi3 && !mistral && json_get<bool>(json, "attention_bias", false, kConfig);
  c.qkv_bias = c.o_bias || qwen2;
  c.mlp_bias = c.family == "llama" && json_get<bool>(json, "mlp_bias", false, kConfig);
  c.fused = phi3;
  c.head_norms = qwen3;
  if (gemma)
    read_gemma(json, c);
  else
    c.activation = activation_named(json, "hidden_act", "silu");
  if (c.family == "gemma3_text") {
    read_gemma3_ropes(json, c);
  } else {
    const double part = phi3 ? nn::partial_rotary_factor(json, 1) : 1;
    Json rope = json;
    // Early Phi-3 files call longrope "yarn".
    if (phi3 && rope.contains("rope_scaling") && rope["rope_scaling"].is_object())
      for (const char* key : {"type", "rope_type"})
        if (rope["rope_scaling"].contains(key) && rope["rope_scaling"][key] == "yarn")
          rope["rope_scaling"][key] = "longrope";
    c.ropes.push_back(nn::RopeSpec::from_config(
        rope, static_cast<int64_t>(static_cast<double>(c.head_width) * part), c.max_positions));
  }
  read_windows(json, c);
  return c;
}

}  // namespace nibble::models
