#include "nn/linear.h"

#include <algorithm>

#include "base/rng.h"
#include "nn/table.h"

namespace nibble::nn {

Linear::Linear(std::string name, quant::Weight weight, Tensor bias, Stored stored, bool stays_dense)
    : name_(std::move(name)), weight_(std::move(weight)), stored_(stored), stays_dense_(stays_dense) {
  require(!bias.defined() || bias.shape() == Shape{weight_.rows()}, name_, "bias {} for {} outputs",
          bias.defined() ? bias.shape().str() : "", weight_.rows());
  if (bias.defined()) bias_ = Variable(std::move(bias));
}

ops::LinearArgs Linear::args(const Context& cx, int64_t tokens) const {
  ops::LinearArgs a{.weight = &weight_, .trainable = weight_parameter_.variable, .bias = bias_, .lora = {}};
  for (const autograd::AdapterSpan& span : cx.adapters) {
    const auto it = adapters_.find(span.adapter);
    const int64_t begin = std::clamp<int64_t>(span.begin, 0, tokens),
                  end = std::clamp<int64_t>(span.end, begin, tokens);
    if (it == adapters_.end() || begin == end) continue;
    const LoraPair& pair = it->second;
    a.lora.push_back({.a = pair.a.variable,
                      .b = pair.b.variable,
                      .scale = pair.scale,
                      .dropout = pair.dropout,
                      .dropout_stream = stream_id(name_),
                      .begin = begin,
                      .end = end});
  }
  return a;
}

Variable Linear::operator()(Context& cx, const Variable& x) const {
  return ops::linear(cx, x, args(cx, x.size(0)));
}

void Linear::assign(Tensor weight, Tensor bias) {
  require(weight.shape() == weight_.shape && bias.defined() == bias_.defined() &&
              (!bias.defined() || bias.shape() == bias_.shape()),
          name_, "the values to take over are {}{}, the layer is {}", weight.shape().str(),
          bias.defined() ? " with a bias" : "", weight_.shape.str());
  weight_ = quant::dense_weight(std::move(weight));
  if (bias.defined()) bias_ = Variable(std::move(bias));
}

void Linear::make_trainable(Allocator& allocator) {
  if (weight_parameter_.variable.defined()) return;
  const Tensor master = decode_master(weight_, allocator, "linear");
  weight_ = quant::dense_weight(master);
  weight_parameter_ = autograd::make_parameter(name_ + ".weight", master);
  if (!bias_.defined()) return;
  bias_parameter_ = autograd::make_parameter(name_ + ".bias", bias_.value());
  bias_ = bias_parameter_.variable;
}

}  // namespace nibble::nn
