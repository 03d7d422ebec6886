// LLaMA and the families that differ from it by a switch: Mistral (sliding window), Qwen2 (biases on q, k,
// v), SmolLM. Touvron et al. 2023; Jiang et al. 2023; Qwen team 2024. Names and row order are those of the
// Hugging Face checkpoints.
#pragma once
#include <memory>

#include "models/model.h"

namespace nibble::models {

// Errors: Error{"config.json"} naming the key, its value and what it should be; whatever the loader finds.
std::unique_ptr<CausalModel> load_llama(const io::ModelFiles& files, backend::Stream& stream,
                                        const nn::LoadOptions& options);

}  // namespace nibble::models
