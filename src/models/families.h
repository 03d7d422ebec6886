// The load functions of the families, one file each (<family>.cpp says what it is); registry.cpp gives them
// their names. Names and row order are those of the Hugging Face checkpoints. Errors: Error{"config.json"}
// naming the key, its value and what it should be; whatever the loader finds.
#pragma once
#include <memory>

#include "models/model.h"

namespace nibble::models {

// LLaMA and the families that differ from it by a switch: Mistral, Qwen2 and 3, Phi-3, Gemma 1 to 3.
std::unique_ptr<Model> load_llama(const io::ModelFiles& files, backend::Stream& stream,
                                  const nn::LoadOptions& options);
std::unique_ptr<Model> load_gpt_neox(const io::ModelFiles& files, backend::Stream& stream,
                                     const nn::LoadOptions& options);
std::unique_ptr<Model> load_opt(const io::ModelFiles& files, backend::Stream& stream,
                                const nn::LoadOptions& options);
std::unique_ptr<Model> load_bloom(const io::ModelFiles& files, backend::Stream& stream,
                                  const nn::LoadOptions& options);
std::unique_ptr<Model> load_gpt2(const io::ModelFiles& files, backend::Stream& stream,
                                 const nn::LoadOptions& options);
// Encoder–decoders.
std::unique_ptr<Model> load_t5(const io::ModelFiles& files, backend::Stream& stream,
                               const nn::LoadOptions& options);
// Encoders: with a classification head, or bare, which gives hidden states alone.
std::unique_ptr<Model> load_bert(const io::ModelFiles& files, backend::Stream& stream,
                                 const nn::LoadOptions& options);
std::unique_ptr<Model> load_roberta(const io::ModelFiles& files, backend::Stream& stream,
                                    const nn::LoadOptions& options);

}  // namespace nibble::models
