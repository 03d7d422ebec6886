// Where a model's weights come from, whatever the file: every source speaks the names, shapes and row order
// of the Hugging Face checkpoint ("model.layers.0.self_attn.q_proj.weight") and of its config.json.
//
// Sources: a Hugging Face directory (single or sharded safetensors, dense or bnb-4bit / LLM.int8), GGUF,
// llama2.c .bin. Ownership: Weights read from a source lie over its mapping and keep it alive; nothing is
// copied that need not be.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "quant/weight.h"

namespace nibble::io {

struct WeightInfo {
  std::string name;
  Shape shape;
  std::string stored;  // "BF16", "Q4_K", "nf4 + double quantization, block 64"
  int64_t bytes = 0;   // in the file, all parts together
};

class WeightSource {
 public:
  virtual ~WeightSource() = default;
  virtual bool has(const std::string& name) const = 0;
  // As stored, without conversion: dense, code book, int8 row or GGUF blocks. Errors: Error{file} when it is
  // missing (the nearest name is suggested), its extent lies outside the file or its type cannot be decoded.
  virtual quant::Weight read(const std::string& name) const = 0;
  // read(), held to the shape that the model expects. Errors as read(), and Error{name} when it has another
  // one.
  virtual quant::Weight read_as(const std::string& name, const Shape& expected) const;
  // Every weight, in file order; the parts of a quantized one count as one under its ".weight" name.
  virtual std::vector<WeightInfo> list() const = 0;
  // The pages of this weight may leave resident memory: it was converted and will not be read again.
  virtual void forget(const std::string& name) const { (void)name; }
};

// A source seen from a module: names are relative to a prefix. w / "self_attn" / "q_proj" then
// w.read("weight").
class ScopedWeights {
 public:
  explicit ScopedWeights(std::shared_ptr<const WeightSource> source, std::string prefix = "")
      : source_(std::move(source)), prefix_(std::move(prefix)) {}
  ScopedWeights operator/(std::string_view part) const {
    return ScopedWeights(source_, prefix_ + std::string(part) + ".");
  }
  ScopedWeights operator/(int64_t index) const { return *this / std::to_string(index); }
  bool has(std::string_view name) const { return source_->has(full(name)); }
  quant::Weight read(std::string_view name, const Shape& expected) const {
    return source_->read_as(full(name), expected);
  }
  void forget(std::string_view name) const { source_->forget(full(name)); }
  std::string full(std::string_view name) const { return prefix_ + std::string(name); }
  // Without the trailing dot: "model.layers.0.self_attn".
  std::string path() const { return prefix_.empty() ? prefix_ : prefix_.substr(0, prefix_.size() - 1); }
  const std::shared_ptr<const WeightSource>& source() const { return source_; }

 private:
  std::shared_ptr<const WeightSource> source_;
  std::string prefix_;
};

struct ModelFiles {
  std::string path;       // as given
  std::string container;  // "safetensors", "gguf", "llama2.c"
  Json config;            // config.json, or the same keys made from the file's metadata
  std::shared_ptr<const WeightSource> weights;
  std::vector<std::string> files;  // every weight file
  // Hashes of the models that these weights were made from, as `nibble quantize` recorded them; mostly empty.
  std::vector<std::string> sources;

  ScopedWeights root() const { return ScopedWeights(weights); }
  // XXH3-128 over sizes and contents of the weight files (parallel, cached per process); what manifests
  // record.
  std::string hash() const;
  // Its own hash and those of its sources: models with one in common hold the same weights, rounded
  // differently.
  std::vector<std::string> lineage() const;
};

// A model that is not there: only the shapes that its config.json implies, for planning on a meta stream.
// Every weight reads as BF16 without memory, whatever shape is expected of it; `path` stands in messages.
ModelFiles shapes_of(const std::string& path, Json config);

// A model to be trained from nothing: `directory` holds config.json. Matrices are N(0, initializer_range of
// the config, else 0.02), vectors 1 when they are weights and 0 when they are biases; a value is a function
// of (seed, name, place). hash() is that of config.json. Errors: Error{directory}: no config.json.
ModelFiles random_model(const std::string& directory, uint64_t seed);

// `weights` with values for what it lacks below these prefixes ("classifier."): as random_model() makes them.
std::shared_ptr<const WeightSource> with_fresh_weights(std::shared_ptr<const WeightSource> weights,
                                                       std::vector<std::string> prefixes, uint64_t seed,
                                                       double deviation);

// Where `sources` stands in the metadata of a safetensors file: hashes with a space between.
inline constexpr const char* kSourcesKey = "nibble_sources";

// A directory, a .gguf, a .safetensors (with config.json beside it) or a llama2.c .bin.
// Errors: Error{path}: what was looked for; a directory without weights; an unknown container.
ModelFiles open_model(const std::string& path);

}  // namespace nibble::io
