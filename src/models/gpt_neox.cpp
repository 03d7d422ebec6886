// GPT-NeoX and Pythia (Black et al. 2022, Biderman et al. 2023): rotary positions on a part of each head,
// attention and feed-forward side by side, q, k and v of each head from one product.
#include "models/config_keys.h"
#include "models/families.h"
#include "models/gpt.h"

namespace nibble::models {

std::unique_ptr<Model> load_gpt_neox(const io::ModelFiles& files, backend::Stream& stream,
                                     const nn::LoadOptions& options) {
  const Json& json = files.config;
  GptConfig c = read_usual_sizes(json);
  c.family = "gpt_neox";
  c.max_positions = positive(json, "max_position_embeddings", 2048);
  c.tied_head = json_get<bool>(json, "tie_word_embeddings", false, kConfig);
  c.activation = activation_named(json, "hidden_act", "gelu");
  c.norm_eps = norm_epsilon(json, "layer_norm_eps", 1e-5);
  c.attention_bias = json_get<bool>(json, "attention_bias", true, kConfig);
  c.residual =
      json_get<bool>(json, "use_parallel_residual", true, kConfig) ? Residual::kParallel : Residual::kPreNorm;
  c.fused = nn::FusedQkv::kByHead;

  // This family has its own names for what others call rope_theta and partial_rotary_factor.
  Json rope = json;
  if (!rope.contains("rope_theta"))
    rope["rope_theta"] = json_get<double>(json, "rotary_emb_base", 10000.0, kConfig);
  const auto part = nn::partial_rotary_factor(json, json_get<double>(json, "rotary_pct", 0.25, kConfig));
  c.rope = nn::RopeSpec::from_config(rope, static_cast<int64_t>(static_cast<double>(c.head_width) * part),
                                     c.max_positions);

  // Transformers 5 calls the head lm_head; the published checkpoints say embed_out.
  const bool renamed = files.weights->has("lm_head.weight");
  c.names = {.embedding = "gpt_neox.embed_in",
             .blocks = "gpt_neox.layers",
             .last_norm = "gpt_neox.final_layer_norm",
             .head = renamed ? "lm_head" : "embed_out",
             .attention_norm = "input_layernorm",
             .mlp_norm = "post_attention_layernorm",
             .qkv = "attention.query_key_value",
             .o = "attention.dense",
             .up = "mlp.dense_h_to_4h",
             .down = "mlp.dense_4h_to_h"};
  return make_gpt(nn::Loader(files.root(), stream, options), std::move(c));
}

}  // namespace nibble::models
