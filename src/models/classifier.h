// Classification and regression of whole sequences by an encoder: the head, and how any checkpoint of an
// encoder becomes a model that has one.
#pragma once
#include <string>
#include <vector>

#include "io/peft_adapter.h"
#include "io/weights.h"
#include "models/modules.h"
#include "nn/loader.h"

namespace nibble::models {

using autograd::Context;
using autograd::Variable;

struct ClassifierConfig {
  int64_t labels = 0;      // classes; 1: a score (regression); 0: there is no head
  std::string dense, out;  // paths in the checkpoint
  bool dense_is_head =
      false;  // the dense product is part of the head, trained whole (RoBERTa), or of the encoder (BERT)
  bool dropout_first = false;  // also before the dense product (RoBERTa)
  float dropout = 0;
};

// tanh(dense(first token of each sequence)) with dropout, then the product that gives the scores.
class ClassificationHead {
 public:
  ClassificationHead() = default;
  // `root`: the checkpoint's. The head itself is never quantized. Without labels a pooler that the checkpoint
  // has is kept, for whoever writes the model, and never used.
  ClassificationHead(const nn::Loader& root, ClassifierConfig config, int64_t width);
  bool defined() const { return out_.defined(); }
  // h [T, D] -> [n, D], one row per segment.
  Variable pool(Context& cx, const Variable& h, const Tensor& segments) const;
  // The last product, as Model::head().
  ops::LinearArgs args(const Context& cx, int64_t rows) const { return out_.args(cx, rows); }
  void list(Modules& modules);

 private:
  ClassifierConfig config_;
  nn::Linear dense_, out_;
};

// Of a config.json: what a ...ForSequenceClassification predicts. Errors: a head for several labels at a
// time.
int64_t label_count(const Json& config);

// Can this architecture classify (is it an encoder's)?
bool is_encoder(const Json& config);

// The same encoder with a head of `outputs` classes, or of one score (1). A checkpoint with a head keeps it,
// if it has as many; otherwise it, and a pooler where the checkpoint has none, starts as Transformers would:
// N(0, initializer_range), biases zero, by `seed` and name. `names`: of the classes, for config.json; may be
// empty. Errors: Error{path}: not an encoder; a head of another size.
io::ModelFiles as_classifier(io::ModelFiles files, int64_t outputs, uint64_t seed,
                             const std::vector<std::string>& names = {});

// What an adapter was trained on: the files as they are, or with a head where it saves one (task type
// SEQ_CLS).
io::ModelFiles with_head_of(const io::AdapterFile& adapter, io::ModelFiles files);

}  // namespace nibble::models
