// Any bytes given as a GGUF model give weights under Hugging Face's names, or an Error.
#include <vector>

#include "base/error.h"
#include "io/weights.h"
#include "tests/fuzz/temp_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string path = nibble::fuzz::temp_directory() + "/model.gguf";
  nibble::fuzz::put(path, data, size);
  try {
    const auto model = nibble::io::open_model(path);
    for (const auto& info : model.weights->list()) {
      try {
        const auto w = model.weights->read(info.name);
        if (w.shape.rank() == 0 || w.rows() == 0) continue;
        std::vector<float> row(static_cast<size_t>(w.numel() / w.rows()));
        nibble::quant::decode_rows(w, w.rows() - 1, w.rows(), row.data());
      } catch (const nibble::Error&) {
      }
    }
  } catch (const nibble::Error&) {
  }
  return 0;
}
