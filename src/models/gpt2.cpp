// GPT-2 (Radford et al. 2019): learned positions, tanh GELU, products stored as [in, out] ("Conv1D"), q, k
// and v from one.
#include <cmath>

#include "models/config_keys.h"
#include "models/families.h"
#include "models/gpt.h"

namespace nibble::models {

std::unique_ptr<Model> load_gpt2(const io::ModelFiles& files, backend::Stream& stream,
                                 const nn::LoadOptions& options) {
  const Json& json = files.config;
  GptConfig c;
  c.family = "gpt2";
  c.source = json;
  c.vocab = positive(json, "vocab_size");
  c.width = c.embedding_width = positive(json, "n_embd");
  c.layers = layer_count(json, "n_layer");
  c.heads = c.kv_heads = positive(json, "n_head");
  c.head_width = divided_width(c.width, c.heads);
  c.feed_forward = positive(json, "n_inner", 4 * c.width);
  c.max_positions = positive(json, "n_positions", 1024);
  c.tied_head = json_get<bool>(json, "tie_word_embeddings", true, kConfig);
  c.activation = activation_named(json, "activation_function", "gelu_new");
  c.norm_eps = norm_epsilon(json, "layer_norm_epsilon", 1e-5);
  c.fused = nn::FusedQkv::kInTurn;
  c.stored = nn::Stored::kInOut;
  require(!json_get<bool>(json, "add_cross_attention", false, kConfig), kConfig,
          "add_cross_attention is set; this model needs an encoder, which GPT-2 here does not have");
  const bool by_width = json_get<bool>(json, "scale_attn_weights", true, kConfig),
             by_layer = json_get<bool>(json, "scale_attn_by_inverse_layer_idx", false, kConfig);
  for (int64_t i = 0; i < c.layers; ++i)
    c.scales.push_back((by_width ? 1.0f / std::sqrt(static_cast<float>(c.head_width)) : 1.0f) /
                       (by_layer ? static_cast<float>(i + 1) : 1.0f));
  c.names = {.embedding = "transformer.wte",
             .positions = "transformer.wpe",
             .blocks = "transformer.h",
             .last_norm = "transformer.ln_f",
             .head = "lm_head",
             .attention_norm = "ln_1",
             .mlp_norm = "ln_2",
             .qkv = "attn.c_attn",
             .o = "attn.c_proj",
             .up = "mlp.c_fc",
             .down = "mlp.c_proj"};
  return make_gpt(nn::Loader(files.root(), stream, options), std::move(c));
}

}  // namespace nibble::models
