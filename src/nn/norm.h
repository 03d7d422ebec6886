// RMSNorm as a module: a vector that may be a parameter.
#pragma once
#include "ops/ops.h"

namespace nibble::nn {

using autograd::Parameter;

class RmsNorm {
 public:
  RmsNorm() = default;
  RmsNorm(std::string name, Tensor weight, float eps)
      : name_(std::move(name)), weight_(std::move(weight)), eps_(eps) {}

  autograd::Variable operator()(autograd::Context& cx, const autograd::Variable& x) const {
    return ops::rms_norm(cx, x, weight_, eps_);
  }
  // Full fine-tuning. The vector is F32 already and the model's own.
  void make_trainable() {
    if (parameter_.variable.defined()) return;
    parameter_ = autograd::make_parameter(name_ + ".weight", weight_.value());
    weight_ = parameter_.variable;
  }
  Parameter* parameter() { return parameter_.variable.defined() ? &parameter_ : nullptr; }
  const std::string& name() const { return name_; }
  const Tensor& weight() const { return weight_.value(); }

 private:
  std::string name_;
  autograd::Variable weight_{Tensor()};
  float eps_ = 1e-5f;
  Parameter parameter_;
};

}  // namespace nibble::nn
