// Any bytes given as adapter_config.json, beside a sound adapter_model.safetensors, give an adapter or an
// Error.
#include "base/error.h"
#include "io/peft_adapter.h"
#include "io/safetensors.h"
#include "tests/fuzz/temp_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string directory = nibble::fuzz::temp_directory() + "/adapter";
  static const bool made = [] {
    std::filesystem::create_directories(directory);
    static const float values[6] = {1, 2, 3, 4, 5, 6};
    const auto tensor = [](const nibble::Shape& s) {
      return nibble::Tensor::borrow(values, s, nibble::kF32, nullptr);
    };
    const std::string name = "base_model.model.model.layers.0.self_attn.q_proj.lora_";
    nibble::io::write_safetensors(directory + "/adapter_model.safetensors",
                                  {{name + "A.weight", tensor({2, 3})}, {name + "B.weight", tensor({3, 2})}},
                                  {});
    return true;
  }();
  (void)made;
  nibble::fuzz::put(directory + "/adapter_config.json", data, size);
  try {
    const auto adapter = nibble::io::read_adapter(directory);
    for (const auto& pair : adapter.pairs) (void)nibble::io::scale_of(adapter.config, pair.module);
  } catch (const nibble::Error&) {
  }
  return 0;
}
