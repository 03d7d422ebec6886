// model.safetensors.index.json beside two sound shards.
#include "io/safetensors.h"
#include "tests/fuzz/use_model.h"

FUZZ_TARGET(hf_index) {
  static const std::string directory = [] {
    static const float values[4] = {1, 2, 3, 4};
    const std::string made = nibble::fuzz::scratch_directory("hf_index");
    nibble::fuzz::put(made + "/config.json", "{}");
    for (const char* shard : {"a", "b"})
      nibble::io::write_safetensors(
          made + "/" + shard + ".safetensors",
          {{std::string(shard) + ".weight", nibble::Tensor::borrow(values, {2, 2}, nibble::kF32, nullptr)}},
          {});
    return made;
  }();
  nibble::fuzz::put(directory + "/model.safetensors.index.json", bytes);
  nibble::fuzz::use(nibble::io::open_model(directory));
}
