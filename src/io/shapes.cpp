// Models of which only config.json is known: the shapes that a plan needs, and random weights to train from.
#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "io/sources.h"

namespace nibble::io {
namespace {

class ShapeSource : public WeightSource {
 public:
  explicit ShapeSource(std::string path) : path_(std::move(path)), allocator_(make_meta_allocator()) {}
  bool has(const std::string&) const override { return false; }
  quant::Weight read(const std::string& name) const override {
    fail(path_, "has no weights, only config.json; \"{}\" cannot be read", name);
  }
  quant::Weight read_as(const std::string& name, const Shape& expected) const override {
    return quant::dense_weight(Tensor::empty(*allocator_, expected, kBF16, name));
  }
  std::vector<WeightInfo> list() const override { return {}; }

 private:
  std::string path_;
  std::shared_ptr<Allocator> allocator_;
};

// Vectors are 1 or, biases, 0; matrices N(0, deviation) by seed, name and place.
quant::Weight random_weight(const std::string& name, const Shape& shape, uint64_t seed, double deviation) {
  Tensor t = Tensor::empty(host_allocator(), shape, kF32, name);
  float* out = t.data<float>();
  if (shape.rank() < 2) {
    std::fill(out, out + t.numel(), name.ends_with("bias") ? 0.0f : 1.0f);
  } else {
    const Rng rng(seed, stream_id(name));
    parallel_for(t.numel(), 1 << 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        out[i] = static_cast<float>(deviation * rng.normal(static_cast<uint64_t>(i)));
    });
  }
  return quant::dense_weight(t);
}

class RandomSource : public WeightSource {
 public:
  RandomSource(std::string path, uint64_t seed, double deviation)
      : path_(std::move(path)), seed_(seed), deviation_(deviation) {}
  bool has(const std::string&) const override { return false; }
  quant::Weight read(const std::string& name) const override {
    fail(path_, "has no weights yet, only config.json; \"{}\" cannot be read", name);
  }
  quant::Weight read_as(const std::string& name, const Shape& expected) const override {
    return random_weight(name, expected, seed_, deviation_);
  }
  std::vector<WeightInfo> list() const override { return {}; }

 private:
  std::string path_;
  uint64_t seed_;
  double deviation_;
};

class FreshSource : public WeightSource {
 public:
  FreshSource(std::shared_ptr<const WeightSource> weights, std::vector<std::string> prefixes, uint64_t seed,
              double deviation)
      : weights_(std::move(weights)), prefixes_(std::move(prefixes)), seed_(seed), deviation_(deviation) {}
  bool has(const std::string& name) const override { return weights_->has(name); }
  quant::Weight read(const std::string& name) const override { return weights_->read(name); }
  quant::Weight read_as(const std::string& name, const Shape& expected) const override {
    const bool fresh = std::any_of(prefixes_.begin(), prefixes_.end(),
                                   [&](const std::string& p) { return name.starts_with(p); });
    return fresh && !weights_->has(name) ? random_weight(name, expected, seed_, deviation_)
                                         : weights_->read_as(name, expected);
  }
  std::vector<WeightInfo> list() const override { return weights_->list(); }
  void forget(const std::string& name) const override {
    if (weights_->has(name)) weights_->forget(name);
  }

 private:
  std::shared_ptr<const WeightSource> weights_;
  std::vector<std::string> prefixes_;
  uint64_t seed_;
  double deviation_;
};

}  // namespace

std::shared_ptr<const WeightSource> with_fresh_weights(std::shared_ptr<const WeightSource> weights,
                                                       std::vector<std::string> prefixes, uint64_t seed,
                                                       double deviation) {
  return std::make_shared<FreshSource>(std::move(weights), std::move(prefixes), seed, deviation);
}

ModelFiles random_model(const std::string& directory, uint64_t seed) {
  const std::string config = directory + "/config.json";
  require(std::filesystem::exists(config), directory, "holds no config.json, which says what model to make");
  ModelFiles files;
  files.path = directory;
  files.container =
      "safetensors";  // what the trained model is written as, beside the same config and tokenizer
  files.config = read_hugging_face_config(config);
  const double deviation = json_get<double>(files.config, "initializer_range", 0.02, config);
  require(deviation > 0 && deviation < 1, config,
          "initializer_range should be a small positive number, got {}", deviation);
  files.weights = std::make_shared<RandomSource>(directory, seed, deviation);
  files.files = {config};
  return files;
}

ModelFiles shapes_of(const std::string& path, Json config) {
  ModelFiles files;
  files.path = path;
  files.container = "shapes";
  files.config = std::move(config);
  files.weights = std::make_shared<ShapeSource>(path);
  return files;
}

}  // namespace nibble::io
