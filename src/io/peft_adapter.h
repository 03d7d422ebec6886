// PEFT's adapter directory: adapter_config.json and adapter_model.safetensors, both ways.
//
// Keys: base_model.model.<module path>.lora_A.weight [r, in], .lora_B.weight [out, r]. Row order is always that of the
// Hugging Face checkpoint, whatever file the base came from.
// Reading refuses what would be silently wrong: DoRA, biases, modules_to_save and other PEFT types are named in the error.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "tensor/tensor.h"

namespace nibble::io {

struct AdapterConfig {
  int64_t r = 16;
  double lora_alpha = 32;
  double lora_dropout = 0;
  bool use_rslora = false;
  std::vector<std::string> target_modules;
  std::map<std::string, int64_t> rank_pattern;    // PEFT: regex of module path → rank
  std::map<std::string, double> alpha_pattern;
  std::string base_model;                         // base_model_name_or_path
  std::string task_type = "CAUSAL_LM";
};

struct AdapterPair {
  std::string module;  // "model.layers.0.self_attn.q_proj"
  Tensor a, b;         // F32 (or what the file holds on reading); [r, in], [out, r]
};

struct AdapterFile {
  AdapterConfig config;
  std::vector<AdapterPair> pairs;  // by module name
  Json manifest;                   // nibble's own record beside it (nibble_manifest.json), or null
};

// Errors: Error{path}: no such directory, missing file, a key that is not LoRA's, A without B, rank that disagrees
// with the config, non-finite values, an empty adapter.
AdapterFile read_adapter(const std::string& directory);
// Writes both files (and the manifest, if not null) so that the directory is complete or untouched, then reads the
// tensors back and compares. Errors: also an adapter without pairs or with non-finite values.
void write_adapter(const std::string& directory, const AdapterFile& adapter);

}  // namespace nibble::io
