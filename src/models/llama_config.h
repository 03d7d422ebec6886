// The keys of a LLaMA family's config.json.
#pragma once
#include <vector>

#include "models/model.h"
#include "nn/rope_table.h"

namespace nibble::models {

struct LlamaConfig : ModelConfig {
  float norm_eps = 1e-5f;
  bool qkv_bias = false, o_bias = false, mlp_bias = false;
  nn::RopeSpec rope;
  std::vector<int64_t> windows;  // of each layer; 0: sees everything
};

// Errors: Error{"config.json"} for a key that is missing, of another type or out of range, and for sizes that
// do not fit each other.
LlamaConfig read_llama_config(const Json& json);

}  // namespace nibble::models
