// adapter_model.safetensors, beside a sound adapter_config.json.
#include "io/peft_adapter.h"
#include "tests/fuzz/fuzz.h"

FUZZ_TARGET(adapter_weights) {
  static const std::string directory = [] {
    const std::string made = nibble::fuzz::scratch_directory("adapter_weights");
    nibble::fuzz::put(made + "/adapter_config.json",
                      R"({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]})");
    return made;
  }();
  nibble::fuzz::put(directory + "/adapter_model.safetensors", bytes);
  (void)nibble::io::read_adapter(directory);
}
