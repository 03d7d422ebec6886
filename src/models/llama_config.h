// The keys of config.json of LLaMA and of the families that are switches of it.
#pragma once
#include <vector>

#include "models/model.h"
#include "nn/rope_table.h"

namespace nibble::models {

struct LlamaConfig : ModelConfig {
  float norm_eps = 1e-5f, norm_offset = 0;
  bool qkv_bias = false, o_bias = false, mlp_bias = false;
  bool fused = false;       // q, k, v from one product, gate and up from another
  bool head_norms = false;  // of q and k
  bool sandwich = false;    // norms behind the sublayers as well
  ops::Activation activation = ops::Activation::kSilu;
  float score_scale = 1, score_cap = 0, logit_cap = 0, embedding_scale = 1;
  std::vector<nn::RopeSpec> ropes;  // one, or also that of the layers with a window
  std::vector<int64_t> windows;     // of each layer; 0: sees everything
  std::vector<size_t> rope_of;      // of each layer
};

// Errors: Error{"config.json"} for a key that is missing, of another type or out of range, and for sizes that
// do not fit each other.
LlamaConfig read_llama_config(const Json& json);

}  // namespace nibble::models
