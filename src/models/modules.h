// The modules of a model in checkpoint order, for everything that goes through all of them: adapters, full
// fine-tuning, export, sizes. A model lists them once, at the end of its constructor, and must not move
// afterwards.
#pragma once
#include <functional>
#include <vector>

#include "nn/lora.h"
#include "nn/norm.h"
#include "nn/table.h"

namespace nibble::models {

class Modules {
 public:
  using ParameterVisitor = std::function<void(autograd::Parameter&)>;
  using WeightVisitor = std::function<void(const std::string& name, const quant::Weight&)>;

  void add(nn::Table& table) { tables_.push_back(&table); }
  void add(nn::Linear& linear) { linears_.push_back(&linear); }
  void add(nn::Norm& norm) { norms_.push_back(&norm); }
  // Of a task's head: never an adapter's, trained whole beside them.
  void add_head(nn::Linear& linear) { heads_.push_back(&linear); }
  // Those that the model has.
  template <class T>
  void add_defined(T& module) {
    if (module.defined()) add(module);
  }

  void visit_linears(const nn::LinearVisitor& visit) const;
  void visit_heads(const nn::LinearVisitor& visit) const;
  // Where any linear is quantized, the dense weights learn that they stand beside it.
  void note_quantized() const;
  // Every weight becomes a parameter.
  void make_trainable(Allocator& allocator) const;
  // Tables, then linears, heads, norms.
  void visit_parameters(const ParameterVisitor& visit) const;
  // Under the checkpoint's names and, dense ones, in its row order.
  void visit_weights(const WeightVisitor& visit) const;
  // As they are held.
  int64_t weight_bytes() const;

 private:
  std::vector<nn::Table*> tables_;
  std::vector<nn::Linear*> linears_, heads_;
  std::vector<nn::Norm*> norms_;
};

}  // namespace nibble::models
