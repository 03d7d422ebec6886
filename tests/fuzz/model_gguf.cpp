// A GGUF model: weights under Hugging Face's names.
#include "tests/fuzz/use_model.h"

FUZZ_TARGET(model_gguf) {
  static const std::string path = nibble::fuzz::scratch("model.gguf");
  nibble::fuzz::put(path, bytes);
  nibble::fuzz::use(nibble::io::open_model(path));
}
