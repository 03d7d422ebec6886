#include "models/registry.h"

#include "models/llama.h"

namespace nibble::models {

std::span<const Family> families() {
  static constexpr Family kFamilies[] = {
      {"LlamaForCausalLM", "llama", load_llama},
      {"MistralForCausalLM", "mistral", load_llama},
      {"Qwen2ForCausalLM", "qwen2", load_llama},
  };
  return kFamilies;
}

}  // namespace nibble::models
