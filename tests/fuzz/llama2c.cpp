// A llama2.c checkpoint.
#include "tests/fuzz/use_model.h"

FUZZ_TARGET(llama2c) {
  static const std::string path = nibble::fuzz::scratch("model.bin");
  nibble::fuzz::put(path, bytes);
  nibble::fuzz::use(nibble::io::open_model(path));
}
