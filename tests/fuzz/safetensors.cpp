// A safetensors file, alone and as a model with the parts of bitsandbytes' weights.
#include "io/safetensors.h"

#include "tests/fuzz/use_model.h"

FUZZ_TARGET(safetensors) {
  static const std::string directory = [] {
    const std::string made = nibble::fuzz::scratch_directory("safetensors");
    nibble::fuzz::put(made + "/config.json", "{}");
    return made;
  }();
  const std::string path = directory + "/model.safetensors";
  nibble::fuzz::put(path, bytes);
  const auto file = nibble::io::SafetensorsFile::open(path);
  for (const auto& entry : file.entries) nibble::fuzz::attempt([&] { (void)file.tensor(entry.name); });
  nibble::fuzz::use(nibble::io::open_model(directory));
}
