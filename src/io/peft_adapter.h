// PEFT's adapter directory: adapter_config.json and adapter_model.safetensors, both ways.
//
// Keys: base_model.model.<module path>.lora_A.weight [r, in], .lora_B.weight [out, r]; of a classifier (task
// type SEQ_CLS) also those of its head, base_model.model.classifier.weight and .bias, which is saved whole.
// Row order is always that of the Hugging Face checkpoint, whatever file the base came from. Reading refuses
// what would be silently wrong: DoRA, biases, other modules_to_save and other PEFT types are named in the
// error.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "io/weights.h"
#include "tensor/tensor.h"

namespace nibble::io {

// PEFT: regular expressions over module paths, each with its value. The first that matches counts.
template <class T>
using Patterns = std::vector<std::pair<std::string, T>>;

struct AdapterConfig {
  int64_t r = 16;
  double lora_alpha = 32;
  double lora_dropout = 0;
  bool use_rslora = false;
  // PEFT's word for a base whose weights are stored as [in, out] (GPT-2). A and B are the same with and
  // without it.
  bool fan_in_fan_out = false;
  std::vector<std::string> target_modules;
  Patterns<int64_t> rank_pattern;
  Patterns<double> alpha_pattern;
  std::string base_model;               // base_model_name_or_path
  std::string task_type = "CAUSAL_LM";  // SEQ_CLS: of a classifier
};

// Rank and scale of one module's pair: its pattern where one matches as PEFT matches it, else the config's
// own. scale = alpha / r, or alpha / √r with use_rslora. Errors: Error{"adapter_config.json"} for a pattern
// that is no regex.
int64_t rank_of(const AdapterConfig& config, const std::string& module);
double scale_of(const AdapterConfig& config, const std::string& module);

struct AdapterPair {
  std::string module;  // "model.layers.0.self_attn.q_proj"
  Tensor a, b;         // F32 (or what the file holds on reading); [r, in], [out, r]
};

struct AdapterFile {
  AdapterConfig config;
  std::vector<AdapterPair> pairs;  // by module name
  // What is saved whole, as the checkpoint calls it ("classifier.weight"). With it task_type is SEQ_CLS.
  std::vector<std::pair<std::string, Tensor>> saved;
  Json manifest;  // nibble's own record beside it (nibble_manifest.json), or null
};

// Errors: Error{path}: no such directory, missing file, a key that is not LoRA's, A without B, rank that
// disagrees with the config, non-finite values, an empty adapter.
AdapterFile read_adapter(const std::string& directory);
// Writes both files (and the manifest, if not null) into a directory beside it, reads the tensors back and
// compares, then renames: a new directory appears complete; in one that exists each file is replaced whole,
// the weights last. Errors: also an adapter without pairs or with non-finite values.
void write_adapter(const std::string& directory, const AdapterFile& adapter);

// Refuses an adapter that nibble trained on other weights than these. The same are: the very files (by hash),
// what was quantized from them, what they were quantized from, another quantization of that. An adapter
// without nibble's record (PEFT's own) is let through: names and shapes of its modules decide when it is
// attached. Errors: Error{directory} with both hashes.
void require_same_base(const AdapterFile& adapter, const std::string& directory, const ModelFiles& files);

}  // namespace nibble::io
