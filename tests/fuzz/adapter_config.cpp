// adapter_config.json, beside a sound adapter_model.safetensors.
#include "io/peft_adapter.h"
#include "io/safetensors.h"
#include "tests/fuzz/fuzz.h"

FUZZ_TARGET(adapter_config) {
  static const std::string directory = [] {
    static const float values[6] = {1, 2, 3, 4, 5, 6};
    const auto tensor = [](const nibble::Shape& s) {
      return nibble::Tensor::borrow(values, s, nibble::kF32, nullptr);
    };
    const std::string made = nibble::fuzz::scratch_directory("adapter");
    const std::string name = "base_model.model.model.layers.0.self_attn.q_proj.lora_";
    nibble::io::write_safetensors(made + "/adapter_model.safetensors",
                                  {{name + "A.weight", tensor({2, 3})}, {name + "B.weight", tensor({3, 2})}},
                                  {});
    return made;
  }();
  nibble::fuzz::put(directory + "/adapter_config.json", bytes);
  const auto adapter = nibble::io::read_adapter(directory);
  for (const auto& pair : adapter.pairs) (void)nibble::io::scale_of(adapter.config, pair.module);
}
