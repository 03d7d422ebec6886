#include "models/modules.h"

#include <algorithm>

namespace nibble::models {

void Modules::visit_linears(const nn::LinearVisitor& visit) const {
  for (nn::Linear* linear : linears_) visit(*linear);
}

void Modules::visit_heads(const nn::LinearVisitor& visit) const {
  for (nn::Linear* linear : heads_) visit(*linear);
}

void Modules::note_quantized() const {
  const auto quantized = [](const nn::Linear* linear) { return !linear->weight().is_dense(); };
  if (std::none_of(linears_.begin(), linears_.end(), quantized)) return;
  for (nn::Table* table : tables_) table->set_beside_quantized();
  for (nn::Linear* linear : linears_) linear->set_beside_quantized();
}

void Modules::make_trainable(Allocator& allocator) const {
  for (nn::Table* table : tables_) table->make_trainable(allocator);
  for (const auto* list : {&linears_, &heads_})
    for (nn::Linear* linear : *list) linear->make_trainable(allocator);
  for (nn::Norm* norm : norms_) norm->make_trainable();
}

void Modules::visit_parameters(const ParameterVisitor& visit) const {
  const auto one = [&](autograd::Parameter* p) {
    if (p != nullptr) visit(*p);
  };
  for (nn::Table* table : tables_) one(table->parameter());
  for (const auto* list : {&linears_, &heads_})
    for (nn::Linear* linear : *list) {
      one(linear->weight_parameter());
      one(linear->bias_parameter());
    }
  for (nn::Norm* norm : norms_) {
    one(norm->parameter());
    one(norm->bias_parameter());
  }
}

void Modules::visit_weights(const WeightVisitor& visit) const {
  for (const nn::Table* table : tables_) visit(table->name() + ".weight", table->weight());
  for (const auto* list : {&linears_, &heads_})
    for (const nn::Linear* linear : *list) {
      const std::string name = linear->name() + ".weight";
      const quant::Weight& w = linear->weight();
      const bool turned = linear->stored() == nn::Stored::kInOut && w.is_dense();
      visit(name, turned ? nn::transposed(w, host_allocator(), name) : w);
      if (linear->has_bias()) visit(linear->name() + ".bias", quant::dense_weight(linear->bias()));
    }
  for (const nn::Norm* norm : norms_) {
    visit(norm->name() + ".weight", quant::dense_weight(norm->weight()));
    if (norm->has_bias()) visit(norm->name() + ".bias", quant::dense_weight(norm->bias()));
  }
}

int64_t Modules::weight_bytes() const {
  int64_t bytes = 0;
  for (const nn::Table* table : tables_) bytes += table->weight().stored_bytes();
  for (const auto* list : {&linears_, &heads_})
    for (const nn::Linear* linear : *list)
      bytes += linear->weight().stored_bytes() + (linear->has_bias() ? linear->bias().bytes() : 0);
  for (const nn::Norm* norm : norms_)
    bytes += norm->weight().bytes() + (norm->has_bias() ? norm->bias().bytes() : 0);
  return bytes;
}

}  // namespace nibble::models
