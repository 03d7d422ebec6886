// What the tests of evaluation share: the stories260K model where it is at hand.
#pragma once
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>

#include "autograd/context.h"
#include "backend/kernel_slot.h"
#include "base/error.h"
#include "base/parallel.h"
#include "models/model.h"
#include "tests/message_of.h"
#include "text/tokenizer.h"

namespace nibble::eval {

inline const std::string kSharedData = NIBBLE_SOURCE_DIR "/../shared/data";
inline const std::string kStories = kSharedData + "/models/stories260K/stories260K.bin";

inline bool have_stories() { return std::filesystem::exists(kStories); }

// A model in f32 with its frozen linears in `format` ("none", "nf4" …; block 64, no double quantization).
struct Loaded {
  explicit Loaded(const std::string& path, const std::string& format = "none")
      : tokenizer(text::load_tokenizer(path)),
        stream(host_allocator()),
        context(stream, host_allocator(), kF32) {
    backend::register_cpu_kernels();
    set_threads(1);  // so small a model: threads would cost more than they give
    model = models::load_model(
        io::open_model(path), stream,
        {.quantize = quant::parse_quantize(format, false, 64), .dense_dtype = kF32, .progress = {}});
  }
  std::shared_ptr<const text::Tokenizer> tokenizer;
  backend::Stream stream;
  autograd::Context context;
  std::unique_ptr<models::Model> model;
};

}  // namespace nibble::eval
