// The containers behind open_model(), one file each. Each gives the config and a source that speaks Hugging
// Face's names.
#pragma once
#include "io/weights.h"

namespace nibble::io {

// A directory with config.json and safetensors, or one .safetensors file with config.json beside it.
ModelFiles open_hugging_face(const std::string& path);
// config.json of a directory (no weights are looked for): the files' `config` as every reader sees it.
Json read_hugging_face_config(const std::string& config_path);
// GGUF of the architectures "llama" and "qwen2".
ModelFiles open_gguf_model(const std::string& path);
// llama2.c's first layout ("version 0"): seven int32, then F32 tensors.
ModelFiles open_llama2c(const std::string& path);

// The same weights under the names of the family's language model (published GPT-2, BLOOM and OPT files lack
// its prefix), without buffers such as masks.
std::shared_ptr<const WeightSource> with_canonical_names(std::shared_ptr<const WeightSource> weights,
                                                         const Json& config);

// Throws Error{path}: `name` is not there; the nearest of `known` is suggested.
[[noreturn]] void fail_missing(const std::string& path, const std::string& name,
                               const std::vector<WeightInfo>& known);

}  // namespace nibble::io
