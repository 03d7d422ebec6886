// A model: what trainer, evaluation and generation see of it. One file per family (llama.cpp …), one row each
// in registry.cpp under the architecture names of config.json. Most predict the next token, T5 after an
// encoder has read a source; an encoder with a head predicts a class or a score of each sequence
// (classifier.h).
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "io/weights.h"
#include "models/modules.h"
#include "nn/loader.h"
#include "nn/sequence.h"

namespace nibble::models {

using autograd::Context;
using autograd::Parameter;
using autograd::Variable;

// What the head gives: scores of the next token, of one stream or after reading a source; scores of the
// classes of a sequence; or the one score of it.
enum class Task : uint8_t { kCausalLm, kSeq2Seq, kClassification, kRegression };

struct ModelConfig {
  std::string family;  // "llama"
  Task task = Task::kCausalLm;
  int64_t labels = 0;  // classes, 1 for a score; 0: it predicts tokens
  int64_t vocab = 0, width = 0, layers = 0, heads = 0, kv_heads = 0, head_width = 0, feed_forward = 0;
  int64_t max_positions = 0;
  int64_t encoder_layers = 0, start_token = 0;  // of an encoder–decoder: `layers` are its decoder's
  int64_t bias_buckets = 0;                     // of a relative bias in attention
  bool tied_head = false;
  Json source;  // config.json as read

  bool reads_source() const { return task == Task::kSeq2Seq; }
  // What an encoder–decoder's decoder starts from; none for the others.
  std::optional<int32_t> decoder_start() const {
    return reads_source() ? std::optional(static_cast<int32_t>(start_token)) : std::nullopt;
  }
  int64_t outputs() const { return labels > 0 ? labels : vocab; }  // of the head
};

class Model {
 public:
  Model() = default;
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;
  virtual ~Model() = default;
  virtual const ModelConfig& config() const = 0;

  // Final hidden states [T, D] (after the last norm), of a classifier one row per sequence [n, D]: what
  // `head` is applied to. With a cache, keys and values are appended to it. Of an encoder–decoder: the
  // decoder's, after the encoder has read the sources of `input`.
  virtual Variable forward(Context& cx, const nn::SequenceInput& input, nn::KvCache* cache) const = 0;
  // The output head as arguments of head_cross_entropy() and linear(), for so many rows of hidden states.
  virtual ops::LinearArgs head(const Context& cx, int64_t tokens) const = 0;
  // Logits F32 [n, V] of the given rows of h (a tensor of row numbers, or undefined for all).
  Tensor logits(Context& cx, const Variable& h, const Tensor& rows) const;

  // Every Linear that can carry an adapter, in checkpoint order.
  void visit_linears(const nn::LinearVisitor& visit) const { modules_.visit_linears(visit); }
  // The Linears of a task's head, which adapters' training trains whole (PEFT's modules_to_save); mostly
  // none.
  void visit_heads(const nn::LinearVisitor& visit) const { modules_.visit_heads(visit); }
  // load_model() ends with it.
  void note_quantized() { modules_.note_quantized(); }
  // Full fine-tuning: every weight becomes a parameter (tied ones once).
  void make_trainable(Allocator& allocator) { modules_.make_trainable(allocator); }
  void visit_parameters(const Modules::ParameterVisitor& visit) const { modules_.visit_parameters(visit); }
  // The weights under their checkpoint names, for export.
  void visit_weights(const Modules::WeightVisitor& visit) const { modules_.visit_weights(visit); }
  // Bytes of all weights as they are held.
  int64_t weight_bytes() const { return modules_.weight_bytes(); }
  // Does this product run over what the encoder reads, not over the decoder's stream?
  virtual bool over_source(const nn::Linear&) const { return false; }
  // Multiply-adds ×2 of one token through all products (head apart) of its stream, for limits and estimates.
  double flops_per_token(bool source = false) const;

  int64_t kv_width() const { return config().kv_heads * config().head_width; }

 protected:
  Modules modules_;  // filled by the family's constructor
};

// Reads config and weights. With a meta stream nothing but shapes is made: the plan's model.
// Errors: Error naming an unknown architecture and the known ones; whatever the loader finds.
std::unique_ptr<Model> load_model(const io::ModelFiles& files, backend::Stream& stream,
                                  const nn::LoadOptions& options);

}  // namespace nibble::models
