#include "models/registry.h"

#include "models/families.h"

namespace nibble::models {

std::span<const Family> families() {
  static constexpr Family kFamilies[] = {
      {"LlamaForCausalLM", "llama", load_llama},         {"MistralForCausalLM", "mistral", load_llama},
      {"Qwen2ForCausalLM", "qwen2", load_llama},         {"Qwen3ForCausalLM", "qwen3", load_llama},
      {"Phi3ForCausalLM", "phi3", load_llama},           {"GemmaForCausalLM", "gemma", load_llama},
      {"Gemma2ForCausalLM", "gemma2", load_llama},       {"Gemma3ForCausalLM", "gemma3_text", load_llama},
      {"GPTNeoXForCausalLM", "gpt_neox", load_gpt_neox}, {"OPTForCausalLM", "opt", load_opt},
      {"BloomForCausalLM", "bloom", load_bloom},         {"GPT2LMHeadModel", "gpt2", load_gpt2},
  };
  return kFamilies;
}

}  // namespace nibble::models
