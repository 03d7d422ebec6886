// Any bytes given to the safetensors reader, and to the model reader behind it, give a file or an Error.
#include <vector>

#include "base/error.h"
#include "io/safetensors.h"
#include "io/weights.h"
#include "tests/fuzz/temp_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string directory = nibble::fuzz::temp_directory() + "/safetensors";
  static const bool made = [] {
    std::filesystem::create_directories(directory);
    nibble::fuzz::put(directory + "/config.json", reinterpret_cast<const uint8_t*>("{}"), 2);
    return true;
  }();
  (void)made;
  const std::string path = directory + "/model.safetensors";
  nibble::fuzz::put(path, data, size);
  try {
    const auto file = nibble::io::SafetensorsFile::open(path);
    for (const auto& entry : file.entries) {
      try {
        (void)file.tensor(entry.name);
      } catch (const nibble::Error&) {
      }
    }
    const auto model = nibble::io::open_model(directory);
    for (const auto& info : model.weights->list()) {
      try {
        const auto w = model.weights->read(info.name);
        if (w.shape.rank() == 0 || w.rows() == 0 || w.cols() > 1 << 16) continue;
        std::vector<float> row(static_cast<size_t>(w.numel() / w.rows()));
        if (row.size() <= size_t{1} << 20) nibble::quant::decode_rows(w, w.rows() - 1, w.rows(), row.data());
      } catch (const nibble::Error&) {
      }
    }
  } catch (const nibble::Error&) {
  }
  return 0;
}
