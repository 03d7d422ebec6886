// What GPT-2, GPT-NeoX, OPT, BLOOM, BERT and RoBERTa share: blocks of attention and a plain feed-forward with
// LayerNorms. They differ in where positions come from, in how the residual runs, in fused products, in which
// tokens see which, in what stands behind the last block and in names; a family's file fills in a GptConfig.
#pragma once
#include <optional>

#include "models/classifier.h"
#include "models/model.h"
#include "nn/attention.h"
#include "nn/rope_table.h"

namespace nibble::models {

// With n1, n2 the norms before (or after) attention and feed-forward:
enum class Residual : uint8_t {
  kPreNorm,      // h += attention(n1(h));  h += mlp(n2(h))
  kPostNorm,     // h = n1(h + attention(h));  h = n2(h + mlp(h))                  (OPT-350m, BERT)
  kParallel,     // h += attention(n1(h)) + mlp(n2(h))                                   (GPT-NeoX)
  kNormedInput,  // x = n1(h), h = x + attention(x);  x = n2(h), h = x + mlp(x)          (BLOOM, an option)
};

// Paths in the checkpoint, those of a block relative to it. Empty: the family has no such module.
struct GptNames {
  std::string embedding = "", positions = "", types = "", embedding_norm = "", project_in = "",
              project_out = "", blocks = "", last_norm = "", head = "";
  std::string attention_norm = "", mlp_norm = "", q = "", k = "", v = "", qkv = "", o = "", up = "",
              down = "";
};

struct GptConfig : ModelConfig {
  GptNames names;
  Residual residual = Residual::kPreNorm;
  nn::FusedQkv fused = nn::FusedQkv::kNo;
  nn::Stored stored = nn::Stored::kOutIn;  // of the blocks' products
  bool attention_bias = true, mlp_bias = true;
  bool norm_weights = true;  // false: norms without weight and bias
  ops::Activation activation = ops::Activation::kGelu;
  float norm_eps = 1e-5f;
  int64_t embedding_width = 0;  // not `width`: projected in and out (OPT-350m)
  // Positions: rotary, ALiBi, or a learned table whose row for position p is p + first_position.
  std::optional<nn::RopeSpec> rope;
  bool alibi = false;
  int64_t first_position = 0;
  std::vector<float> scales;  // of each layer's scores
  // Encoders: every token sees its whole sequence, a table of `token_types` rows is added to the embedding,
  // and in training the embedding and the sublayers' results drop out (post-norm alone).
  bool causal = true;
  int64_t token_types = 0;
  float hidden_dropout = 0;
  ClassifierConfig classifier;  // of an encoder, instead of a language model's head
};

// The sizes under the names that most families give them in config.json, with scores divided by √head width.
// Errors: Error{"config.json"}.
GptConfig read_usual_sizes(const Json& config);

std::unique_ptr<Model> make_gpt(const nn::Loader& weights, GptConfig config);

}  // namespace nibble::models
