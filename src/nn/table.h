// A matrix that is never quantized to four bits: a token embedding, an output head, one matrix that is both,
// or a bias by distance.
#pragma once
#include "ops/ops.h"

namespace nibble::nn {

using autograd::Context;
using autograd::Parameter;
using autograd::Variable;

class Table {
 public:
  Table() = default;
  Table(std::string name, quant::Weight weight) : name_(std::move(name)), weight_(std::move(weight)) {}

  // ids I32 [T] -> [T, width].
  Variable embed(Context& cx, const Tensor& ids) const {
    return ops::embedding(cx, ids, weight_, parameter_.variable);
  }
  // As an output head.
  ops::LinearArgs as_head() const {
    return {.weight = &weight_, .trainable = parameter_.variable, .bias = {}, .lora = {}};
  }

  // The matrix itself, which is dense f32 then (Table::f32).
  Variable values() const {
    return parameter_.variable.defined() ? parameter_.variable : Variable(weight_.dense);
  }
  // The same, held as f32.
  Table f32(Allocator& allocator) const;

  // quant::Weight::beside_quantized
  void set_beside_quantized() { weight_.beside_quantized = weight_.is_dense(); }

  void make_trainable(Allocator& allocator);
  Parameter* parameter() { return parameter_.variable.defined() ? &parameter_ : nullptr; }
  const std::string& name() const { return name_; }  // "model.embed_tokens"
  const quant::Weight& weight() const { return weight_; }

 private:
  std::string name_;
  quant::Weight weight_;
  Parameter parameter_;
};

// The f32 master of a weight, decoded from whatever form it has.
Tensor decode_master(const quant::Weight& weight, Allocator& allocator, std::string_view name);

}  // namespace nibble::nn
