#include "models/registry.h"

#include "models/families.h"

namespace nibble::models {

namespace {
constexpr std::string_view kBertClassifier = "BertForSequenceClassification",
                           kRobertaClassifier = "RobertaForSequenceClassification";
}

std::span<const Family> families() {
  static constexpr Family kFamilies[] = {
      {"LlamaForCausalLM", "llama", load_llama},
      {"MistralForCausalLM", "mistral", load_llama},
      {"Qwen2ForCausalLM", "qwen2", load_llama},
      {"Qwen3ForCausalLM", "qwen3", load_llama},
      {"Phi3ForCausalLM", "phi3", load_llama},
      {"GemmaForCausalLM", "gemma", load_llama},
      {"Gemma2ForCausalLM", "gemma2", load_llama},
      {"Gemma3ForCausalLM", "gemma3_text", load_llama},
      {"GPTNeoXForCausalLM", "gpt_neox", load_gpt_neox},
      {"OPTForCausalLM", "opt", load_opt},
      {"BloomForCausalLM", "bloom", load_bloom},
      {"GPT2LMHeadModel", "gpt2", load_gpt2},
      {"T5ForConditionalGeneration", "t5", load_t5},
      {"BertModel", "bert", load_bert, kBertClassifier},
      {"BertForSequenceClassification", "bert", load_bert, kBertClassifier},
      {"BertForMaskedLM", "bert", load_bert, kBertClassifier},
      {"BertForPreTraining", "bert", load_bert, kBertClassifier},
      {"RobertaModel", "roberta", load_roberta, kRobertaClassifier},
      {"RobertaForSequenceClassification", "roberta", load_roberta, kRobertaClassifier},
      {"RobertaForMaskedLM", "roberta", load_roberta, kRobertaClassifier},
  };
  return kFamilies;
}

const Family& family_of(const Json& config, const std::string& where) {
  const auto names = json_get<std::vector<std::string>>(config, "architectures", {}, where);
  const auto type = json_get<std::string>(config, "model_type", "", where);
  std::string known;
  for (const Family& family : families()) {
    if (names.empty() ? family.model_type == type : family.architecture == names[0]) return family;
    known += (known.empty() ? "" : ", ") + std::string(family.architecture);
  }
  fail(where, "the architecture \"{}\" is not known; known are {}", names.empty() ? type : names[0], known);
}

}  // namespace nibble::models
