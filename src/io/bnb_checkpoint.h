// bnb-4bit and LLM.int8 checkpoints as Transformers loads them (reference: bitsandbytes
// QuantState.as_dict(packed=True)). P.weight, P.weight.absmax, P.weight.quant_map, P.weight.nested_absmax,
// P.weight.nested_quant_map, P.weight.quant_state.bitsandbytes__nf4; 8 bits: P.weight, P.SCB,
// P.weight_format.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "base/named_file.h"
#include "io/weights.h"

namespace nibble::io {

// One weight to be written: how large its parts are is known before its values are made.
struct CheckpointItem {
  std::string name;  // "model.layers.0.self_attn.q_proj.weight"
  Shape shape;
  const quant::Format* format;  // dense: `dtype` says which
  DType dtype = kBF16;          // of a dense one; what a quantized one is computed in
  int64_t block = 64;
  bool double_quant = false;
  std::function<quant::Weight()> make;  // called once, in order
  bool linear = false;  // a product of the model: Transformers must be told of one that stays dense
};

// What makes the directory complete beside weights and config.json.
struct CheckpointCompanions {
  std::vector<NamedFile> files;  // tokenizer, chat template, how to generate
  std::vector<std::string>
      sources;  // ModelFiles::lineage() of what the weights are made from; recorded in them
};

// Writes model.safetensors (sharded with an index above `shard_bytes`), the companions and, last, config.json
// with quantization_config. Holds one weight at a time. config's "dtype" becomes that of the first item, its
// quantization_config that of the quantized ones (all alike). Errors: formats that Transformers cannot load
// (only nf4, fp4 and int8 can) say so; whatever fails, nothing of it is left and no file that was there is
// touched: a directory that holds a model, or a file of the same name, is not written into.
struct CheckpointReport {
  int64_t tensors = 0, quantized = 0, bytes = 0;
};
CheckpointReport write_bnb_checkpoint(const std::string& directory, const std::vector<CheckpointItem>& items,
                                      Json config, const CheckpointCompanions& companions,
                                      const std::function<void(int64_t done, int64_t total)>& progress,
                                      int64_t shard_bytes = int64_t{5} << 30);

}  // namespace nibble::io
