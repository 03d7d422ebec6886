// Norms as modules: RMSNorm (Zhang & Sennrich 2019), or LayerNorm (Ba et al. 2016) where there is a bias.
// Their vectors may be parameters.
#pragma once
#include "nn/loader.h"
#include "ops/ops.h"

namespace nibble::nn {

class Norm {
 public:
  Norm() = default;
  // RMSNorm of `offset` + weight (Gemma's weights lie around zero: 1).
  Norm(std::string name, Tensor weight, float eps, float offset = 0)
      : name_(std::move(name)), weight_(std::move(weight)), eps_(eps), offset_(offset) {}
  // LayerNorm.
  Norm(std::string name, Tensor weight, Tensor bias, float eps)
      : name_(std::move(name)), weight_(std::move(weight)), bias_(std::move(bias)), eps_(eps) {}

  // The norm at a loader's path, `width` wide.
  static Norm rms(const Loader& w, int64_t width, float eps, float offset = 0) {
    return {w.path(), w.vector("weight", width), eps, offset};
  }
  static Norm layer(const Loader& w, int64_t width, float eps) {
    return {w.path(), w.vector("weight", width), w.vector("bias", width), eps};
  }

  // heads: x holds that many vectors side by side, each normed by itself (RMSNorm only).
  autograd::Variable operator()(autograd::Context& cx, const autograd::Variable& x, int64_t heads = 1) const {
    return has_bias() ? ops::layer_norm(cx, x, weight_, bias_, eps_)
                      : ops::rms_norm(cx, x, weight_, eps_, offset_, heads);
  }

  // Full fine-tuning. The vectors are F32 already and the model's own.
  void make_trainable() {
    if (parameter_.variable.defined()) return;
    parameter_ = autograd::make_parameter(name_ + ".weight", weight_.value());
    weight_ = parameter_.variable;
    if (!has_bias()) return;
    bias_parameter_ = autograd::make_parameter(name_ + ".bias", bias_.value());
    bias_ = bias_parameter_.variable;
  }
  Parameter* parameter() { return parameter_.variable.defined() ? &parameter_ : nullptr; }
  Parameter* bias_parameter() { return bias_parameter_.variable.defined() ? &bias_parameter_ : nullptr; }

  bool defined() const { return weight_.defined(); }
  const std::string& name() const { return name_; }
  const Tensor& weight() const { return weight_.value(); }
  bool has_bias() const { return bias_.defined(); }
  const Tensor& bias() const { return bias_.value(); }  // REQUIRES has_bias()

 private:
  std::string name_;
  autograd::Variable weight_, bias_;
  float eps_ = 1e-5f, offset_ = 0;
  Parameter parameter_, bias_parameter_;
};

}  // namespace nibble::nn
