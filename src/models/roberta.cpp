// RoBERTa (Liu et al. 2019): BERT's encoder with positions that begin behind the padding token's, and a head
// that has the dense product itself.
#include "models/config_keys.h"
#include "models/encoder_config.h"
#include "models/families.h"

namespace nibble::models {

std::unique_ptr<Model> load_roberta(const io::ModelFiles& files, backend::Stream& stream,
                                    const nn::LoadOptions& options) {
  GptConfig c = read_encoder_config(files.config, "roberta.");
  c.family = "roberta";
  const auto padding = json_get<int64_t>(files.config, "pad_token_id", 1, kConfig);
  require(padding >= 0 && padding + 1 < c.max_positions, kConfig,
          "pad_token_id {} leaves no position of max_position_embeddings {}", padding, c.max_positions);
  c.first_position = padding + 1;
  c.max_positions -= c.first_position;
  c.classifier.dense = "classifier.dense";
  c.classifier.out = "classifier.out_proj";
  c.classifier.dense_is_head = c.classifier.dropout_first = true;
  return make_gpt(nn::Loader(files.root(), stream, options), std::move(c));
}

}  // namespace nibble::models
