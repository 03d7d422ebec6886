// Linear: a weight that owns its format, an optional bias, and a slot for each adapter.
#pragma once
#include <map>
#include <string>

#include "ops/ops.h"

namespace nibble::nn {

using autograd::Context;
using autograd::Parameter;
using autograd::Variable;

// One adapter's pair for one Linear.
struct LoraPair {
  Parameter a, b;  // [r, in], [out, r], F32
  float scale = 1;
  float dropout = 0;
};

// How a checkpoint stores a dense weight. It is held as [out, in] either way.
enum class Stored : uint8_t { kOutIn, kInOut };

class Linear {
 public:
  Linear() = default;
  Linear(std::string name, quant::Weight weight, Tensor bias, Stored stored = Stored::kOutIn,
         bool stays_dense = false);

  // x [T, in] -> [T, out]; adapters as cx.adapters says.
  Variable operator()(Context& cx, const Variable& x) const;
  ops::LinearArgs args(const Context& cx, int64_t tokens) const;

  bool defined() const { return weight_.defined(); }
  const std::string& name() const { return name_; }  // "model.layers.0.self_attn.q_proj"
  int64_t in_features() const { return weight_.cols(); }
  int64_t out_features() const { return weight_.rows(); }
  const quant::Weight& weight() const { return weight_; }
  Stored stored() const { return stored_; }
  // Is it dense whatever the linears of its model become?
  bool stays_dense() const { return stays_dense_; }
  bool has_bias() const { return bias_.defined(); }
  const Tensor& bias() const { return bias_.value(); }  // F32 [out]; REQUIRES has_bias()

  void set_adapter(int id, LoraPair pair) { adapters_[id] = std::move(pair); }
  void remove_adapter(int id) { adapters_.erase(id); }
  LoraPair* adapter(int id) {
    auto it = adapters_.find(id);
    return it == adapters_.end() ? nullptr : &it->second;
  }

  // Other values of the same shapes, F32: a head that an adapter's file saves whole.
  void assign(Tensor weight, Tensor bias);

  // quant::Weight::beside_quantized
  void set_beside_quantized() { weight_.beside_quantized = weight_.is_dense(); }

  // Full fine-tuning: the dense weight (made F32 first) and the bias become parameters.
  void make_trainable(Allocator& allocator);
  Parameter* weight_parameter() {
    return weight_parameter_.variable.defined() ? &weight_parameter_ : nullptr;
  }
  Parameter* bias_parameter() { return bias_parameter_.variable.defined() ? &bias_parameter_ : nullptr; }

 private:
  std::string name_;
  quant::Weight weight_;
  Stored stored_ = Stored::kOutIn;
  bool stays_dense_ = false;
  Variable bias_;
  Parameter weight_parameter_, bias_parameter_;
  std::map<int, LoraPair> adapters_;
};

}  // namespace nibble::nn
