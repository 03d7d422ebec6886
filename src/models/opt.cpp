// OPT (Zhang et al. 2022): learned positions that begin at row 2, ReLU, norms before the sublayers, or after
// them as in the 350m model, whose embeddings are narrower than its blocks. Galactica is OPT without biases
// and with GELU.
#include <cmath>

#include "models/config_keys.h"
#include "models/families.h"
#include "models/gpt.h"

namespace nibble::models {

std::unique_ptr<Model> load_opt(const io::ModelFiles& files, backend::Stream& stream,
                                const nn::LoadOptions& options) {
  const Json& json = files.config;
  GptConfig c;
  c.family = "opt";
  c.source = json;
  c.vocab = positive(json, "vocab_size");
  c.width = positive(json, "hidden_size");
  c.embedding_width = positive(json, "word_embed_proj_dim", c.width);
  c.layers = layer_count(json, "num_hidden_layers");
  c.heads = c.kv_heads = positive(json, "num_attention_heads");
  c.head_width = divided_width(c.width, c.heads);
  c.feed_forward = positive(json, "ffn_dim");
  c.max_positions = positive(json, "max_position_embeddings", 2048);
  c.first_position = 2;
  c.tied_head = json_get<bool>(json, "tie_word_embeddings", true, kConfig);
  c.activation = activation_named(json, "activation_function", "relu");
  c.attention_bias = c.mlp_bias = json_get<bool>(json, "enable_bias", true, kConfig);
  c.norm_weights = json_get<bool>(json, "layer_norm_elementwise_affine", true, kConfig);
  const bool before = json_get<bool>(json, "do_layer_norm_before", true, kConfig);
  c.residual = before ? Residual::kPreNorm : Residual::kPostNorm;
  c.scales.assign(static_cast<size_t>(c.layers), 1.0f / std::sqrt(static_cast<float>(c.head_width)));
  const bool last = before && !json_get<bool>(json, "_remove_final_layer_norm", false, kConfig);
  c.names = {.embedding = "model.decoder.embed_tokens",
             .positions = "model.decoder.embed_positions",
             .project_in = "model.decoder.project_in",
             .project_out = "model.decoder.project_out",
             .blocks = "model.decoder.layers",
             .last_norm = last ? "model.decoder.final_layer_norm" : "",
             .head = "lm_head",
             .attention_norm = "self_attn_layer_norm",
             .mlp_norm = "final_layer_norm",
             .q = "self_attn.q_proj",
             .k = "self_attn.k_proj",
             .v = "self_attn.v_proj",
             .o = "self_attn.out_proj",
             .up = "fc1",
             .down = "fc2"};
  return make_gpt(nn::Loader(files.root(), stream, options), std::move(c));
}

}  // namespace nibble::models
