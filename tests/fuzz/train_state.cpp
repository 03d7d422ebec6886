// state.json of a checkpoint, beside sound tensors.
#include "io/train_state.h"

#include "io/safetensors.h"
#include "tests/fuzz/fuzz.h"

FUZZ_TARGET(train_state) {
  static const std::string directory = [] {
    static const float values[4] = {1, 2, 3, 4};
    const std::string made = nibble::fuzz::scratch_directory("checkpoint-7");
    nibble::io::write_safetensors(
        made + "/state.safetensors",
        {{"a.lora_A", nibble::Tensor::borrow(values, {2, 2}, nibble::kF32, nullptr)}}, {});
    return made;
  }();
  nibble::fuzz::put(directory + "/state.json", bytes);
  (void)nibble::io::read_checkpoint(directory).tensor("a.lora_A");
}
