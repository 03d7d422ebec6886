// Feed-forwards: down(f(up(x))), and the gated down(f(gate(x)) · up(x)) of LLaMA.
#pragma once
#include "nn/linear.h"

namespace nibble::nn {

struct Mlp {
  Linear up, down;
  ops::Activation activation = ops::Activation::kGelu;
  Variable operator()(Context& cx, const Variable& x) const {
    return down(cx, ops::activation(cx, up(cx, x), activation));
  }
};

struct GatedMlp {
  Linear gate, up, down;
  Linear gate_up;  // Phi-3 has both in one product, gate first; gate and up are empty then
  ops::Activation activation = ops::Activation::kSilu;
  Variable operator()(Context& cx, const Variable& x) const {
    if (!gate_up.defined()) {
      const ops::LinearArgs layers[] = {gate.args(cx, x.size(0)), up.args(cx, x.size(0))};
      const std::vector<Variable> parts = ops::linears(cx, x, layers);
      return down(cx, ops::gated(cx, parts[0], parts[1], activation));
    }
    const Variable both = gate_up(cx, x);
    const int64_t width = down.in_features();
    const auto half = [&](int64_t i) {
      return ops::columns(cx, both, {.groups = 1, .stride = 2 * width, .offset = i * width, .width = width});
    };
    return down(cx, ops::gated(cx, half(0), half(1), activation));
  }
};

}  // namespace nibble::nn
