// What the model targets do with a file of weights that was made from hostile bytes.
#pragma once
#include <vector>

#include "io/weights.h"
#include "tests/fuzz/fuzz.h"

namespace nibble::fuzz {

// Every weight is read, and its last row decoded where that is small.
inline void use(const io::ModelFiles& model) {
  for (const auto& info : model.weights->list())
    attempt([&] {
      const auto w = model.weights->read(info.name);
      if (w.shape.rank() == 0 || w.rows() == 0 || w.numel() / w.rows() > int64_t{1} << 20) return;
      std::vector<float> row(static_cast<size_t>(w.numel() / w.rows()));
      quant::decode_rows(w, w.rows() - 1, w.rows(), row.data());
    });
}

}  // namespace nibble::fuzz
