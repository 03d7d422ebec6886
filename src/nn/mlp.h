// The gated feed-forward of LLaMA: down(silu(gate(x)) · up(x)).
#pragma once
#include "nn/linear.h"

namespace nibble::nn {

struct GatedMlp {
  Linear gate, up, down;
  Variable operator()(Context& cx, const Variable& x) const {
    return down(cx, ops::swiglu(cx, gate(cx, x), up(cx, x)));
  }
};

}  // namespace nibble::nn
