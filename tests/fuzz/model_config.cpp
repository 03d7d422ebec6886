// config.json of the LLaMA family, through the directory reader and the family's own, with rotary
// frequencies.
#include "io/safetensors.h"
#include "models/llama_config.h"
#include "tests/fuzz/use_model.h"

FUZZ_TARGET(model_config) {
  static const std::string directory = [] {
    static const float values[4] = {1, 2, 3, 4};
    const std::string made = nibble::fuzz::scratch_directory("model_config");
    nibble::io::write_safetensors(
        made + "/model.safetensors",
        {{"a.weight", nibble::Tensor::borrow(values, {2, 2}, nibble::kF32, nullptr)}}, {});
    return made;
  }();
  nibble::fuzz::put(directory + "/config.json", bytes);
  const auto files = nibble::io::open_model(directory);
  const auto config = nibble::models::read_llama_config(files.config);
  for (const auto& rope : config.ropes)
    if (config.head_width <= 1 << 16) (void)rope.frequencies(4096);
}
