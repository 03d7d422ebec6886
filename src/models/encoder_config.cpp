#include "models/encoder_config.h"

#include "models/config_keys.h"

namespace nibble::models {
namespace {

float probability(const Json& json, const char* key, double otherwise) {
  const auto p = json_get<double>(json, key, otherwise, kConfig);
  require(p >= 0 && p < 1, kConfig, "{} should be at least 0 and below 1, got {}", key, p);
  return static_cast<float>(p);
}

}  // namespace

bool has_sequence_head(const Json& json) {
  const auto names = json_get<std::vector<std::string>>(json, "architectures", {}, kConfig);
  return !names.empty() && names[0].ends_with("ForSequenceClassification");
}

GptConfig read_encoder_config(const Json& json, const std::string& prefix) {
  for (const char* key : {"is_decoder", "add_cross_attention"})
    require(!json_get<bool>(json, key, false, kConfig), kConfig,
            "{} is set; this family is an encoder here, for which it should be false", key);
  const auto positions = json_get<std::string>(json, "position_embedding_type", "absolute", kConfig);
  require(positions == "absolute", kConfig, "position_embedding_type \"{}\" is not supported; absolute is",
          positions);
  GptConfig c = read_usual_sizes(json);
  c.max_positions = positive(json, "max_position_embeddings", 512);
  c.token_types = positive(json, "type_vocab_size", 2);
  c.activation = activation_named(json, "hidden_act", "gelu");
  c.norm_eps = norm_epsilon(json, "layer_norm_eps", 1e-12);
  c.residual = Residual::kPostNorm;
  c.causal = false;
  c.hidden_dropout = probability(json, "hidden_dropout_prob", 0.1);
  c.names = {.embedding = prefix + "embeddings.word_embeddings",
             .positions = prefix + "embeddings.position_embeddings",
             .types = prefix + "embeddings.token_type_embeddings",
             .embedding_norm = prefix + "embeddings.LayerNorm",
             .blocks = prefix + "encoder.layer",
             .attention_norm = "attention.output.LayerNorm",
             .mlp_norm = "output.LayerNorm",
             .q = "attention.self.query",
             .k = "attention.self.key",
             .v = "attention.self.value",
             .o = "attention.output.dense",
             .up = "intermediate.dense",
             .down = "output.dense"};
  c.classifier.dropout = probability(json, "classifier_dropout", static_cast<double>(c.hidden_dropout));
  if (has_sequence_head(json)) {
    c.classifier.labels = c.labels = label_count(json);
    c.task = c.labels == 1 ? Task::kRegression : Task::kClassification;
  }
  return c;
}

}  // namespace nibble::models
