// Any bytes given as a llama2.c checkpoint give weights or an Error.
#include <vector>

#include "base/error.h"
#include "io/weights.h"
#include "tests/fuzz/temp_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string path = nibble::fuzz::temp_directory() + "/model.bin";
  nibble::fuzz::put(path, data, size);
  try {
    const auto model = nibble::io::open_model(path);
    for (const auto& info : model.weights->list()) {
      const auto w = model.weights->read(info.name);
      std::vector<float> row(static_cast<size_t>(w.cols()));
      nibble::quant::decode_rows(w, w.rows() - 1, w.rows(), row.data());
    }
  } catch (const nibble::Error&) {
  }
  return 0;
}
