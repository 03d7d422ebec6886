// BERT (Devlin et al. 2019): an encoder with learned positions and token types, norms behind the sublayers,
// and a pooler (dense, tanh) that belongs to the encoder.
#include "models/encoder_config.h"
#include "models/families.h"

namespace nibble::models {

std::unique_ptr<Model> load_bert(const io::ModelFiles& files, backend::Stream& stream,
                                 const nn::LoadOptions& options) {
  GptConfig c = read_encoder_config(files.config, "bert.");
  c.family = "bert";
  c.classifier.dense = "bert.pooler.dense";
  c.classifier.out = "classifier";
  return make_gpt(nn::Loader(files.root(), stream, options), std::move(c));
}

}  // namespace nibble::models
