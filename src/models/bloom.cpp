// BLOOM (BigScience 2022): ALiBi instead of positions, a norm behind the embedding, q, k and v of each head
// from one product.
#include <cmath>

#include "models/config_keys.h"
#include "models/families.h"
#include "models/gpt.h"

namespace nibble::models {

std::unique_ptr<Model> load_bloom(const io::ModelFiles& files, backend::Stream& stream,
                                  const nn::LoadOptions& options) {
  const Json& json = files.config;
  // Two generations of names for the same numbers.
  const auto either = [&](const char* name, const char* other) {
    return json.contains(name) && !json[name].is_null() ? name : other;
  };
  GptConfig c;
  c.family = "bloom";
  c.source = json;
  c.vocab = positive(json, "vocab_size");
  c.width = c.embedding_width = positive(json, either("n_embed", "hidden_size"));
  c.layers = layer_count(json, either("n_layer", "num_hidden_layers"));
  c.heads = c.kv_heads = positive(json, either("n_head", "num_attention_heads"));
  c.head_width = divided_width(c.width, c.heads);
  c.feed_forward = 4 * c.width;
  c.max_positions = positive(json, "seq_length", 2048);  // ALiBi itself has no end
  c.tied_head = json_get<bool>(json, "tie_word_embeddings", true, kConfig);
  c.activation = ops::Activation::kGeluTanh;
  c.norm_eps = norm_epsilon(json, "layer_norm_epsilon", 1e-5);
  c.residual = json_get<bool>(json, "apply_residual_connection_post_layernorm", false, kConfig)
                   ? Residual::kNormedInput
                   : Residual::kPreNorm;
  c.fused = nn::FusedQkv::kByHead;
  c.alibi = true;
  c.scales.assign(static_cast<size_t>(c.layers), 1.0f / std::sqrt(static_cast<float>(c.head_width)));
  c.names = {.embedding = "transformer.word_embeddings",
             .embedding_norm = "transformer.word_embeddings_layernorm",
             .blocks = "transformer.h",
             .last_norm = "transformer.ln_f",
             .head = "lm_head",
             .attention_norm = "input_layernorm",
             .mlp_norm = "post_attention_layernorm",
             .qkv = "self_attention.query_key_value",
             .o = "self_attention.dense",
             .up = "mlp.dense_h_to_4h",
             .down = "mlp.dense_4h_to_h"};
  return make_gpt(nn::Loader(files.root(), stream, options), std::move(c));
}

}  // namespace nibble::models
