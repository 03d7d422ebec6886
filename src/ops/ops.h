// Operations of a model: shape check, forward, what backward needs, backward, one per file (ops/<name>.cpp).
// Each takes the Context first, returns its result, and records itself only where something is
// differentiated. Letters: T tokens of the stream, D width, H query heads, G key heads, K head width, F
// feed-forward, V vocabulary, R rank. Errors: Error{op name} with the shapes that disagree.
#pragma once
#include <memory>
#include <span>
#include <vector>

#include "autograd/context.h"
#include "backend/kernels/attention.h"
#include "backend/kernels/elementwise.h"
#include "quant/weight.h"

namespace nibble::ops {

using autograd::Backward;
using autograd::Context;
using autograd::Variable;
using backend::Activation;
using backend::Columns;

// y = a + b.
Variable add(Context& cx, const Variable& a, const Variable& b);

// y = factor · x.
Variable scale(Context& cx, const Variable& x, float factor);

// RMSNorm over the last dimension; w [D] is constant or a parameter, to which `offset` is added (Gemma: 1).
// With heads > 1 each row of x [T, heads · D] is that many vectors, each normed by itself (Qwen3's q and k).
Variable rms_norm(Context& cx, const Variable& x, const Variable& w, float eps, float offset = 0,
                  int64_t heads = 1);

// LayerNorm over the last dimension; w and b [D] are constants or parameters.
Variable layer_norm(Context& cx, const Variable& x, const Variable& w, const Variable& b, float eps);

// f(x), and the gated f(gate) · up.
Variable activation(Context& cx, const Variable& x, Activation f);
Variable gated(Context& cx, const Variable& gate, const Variable& up, Activation f);

// Some columns of x, see backend/kernels/elementwise.h: q, k or v of a fused product.
Variable columns(Context& cx, const Variable& x, const Columns& columns);

// The given rows of x, ascending: I32 [n], constant.
Variable rows(Context& cx, const Variable& x, const Tensor& which);

// Inverted dropout; identity unless cx.training. `stream` names the layer.
Variable dropout(Context& cx, const Variable& x, float p, uint64_t stream);

// Rotary embedding, see backend/kernels/rope.h. cos_sin F32 [positions, n], positions I32 [T]: constants.
Variable rope(Context& cx, const Variable& x, const Tensor& cos_sin, const Tensor& positions,
              int64_t head_width);

// Segment attention, see backend/kernels/attention.h. bias F32 [buckets, H] is constant, a parameter, or
// undefined.
Variable attention(Context& cx, const Variable& q, const Variable& k, const Variable& v,
                   const Tensor& segments, const backend::AttentionArgs& args, const Variable& bias = {});

// Token embedding; `trainable` (full fine-tuning) is the parameter that the dense weight is, or undefined.
Variable embedding(Context& cx, const Tensor& ids, const quant::Weight& w, const Variable& trainable);

// A LoRA pair beside a weight, for tokens [begin, end) (QLoRA eq. 5): y += scale · dropout(x) · Aᵀ · Bᵀ.
struct LoraBranch {
  Variable a, b;    // parameters, F32: [R, in], [out, R]
  float scale = 1;  // alpha / R, or alpha / √R
  float dropout = 0;
  uint64_t dropout_stream = 0;
  int64_t begin = 0, end = 0;
};

// y = x · Wᵀ + bias + LoRA branches. x [T, in] -> [T, out].
// The frozen product saves nothing but the weight's handle; its backward decodes W again and gives dx alone.
// A branch saves x (shared with whoever else saved it) and x · Aᵀ. With few rows and no tape the product runs
// straight from the stored form (weight_matvec). `trainable`: the dense weight as a parameter (full
// fine-tuning), else undefined.
struct LinearArgs {
  const quant::Weight* weight = nullptr;
  Variable trainable;
  Variable bias;  // [out], constant or parameter; may be undefined
  std::vector<LoraBranch> lora;
  bool f32_output = false;  // y is F32 whatever the compute type (logits)
  float softcap = 0;        // of an output head: head_cross_entropy() caps the logits (kernels/elementwise.h)
};
Variable linear(Context& cx, const Variable& x, const LinearArgs& args);
// Layers that read the same x (q, k, v; gate, up): what linear() gives for each, in one kernel where products
// run from the stored form.
std::vector<Variable> linears(Context& cx, const Variable& x, std::span<const LinearArgs> layers);
// The same from plain products of f32 tensors: what linear() must equal, in values and gradients.
Variable linear_composed(Context& cx, const Variable& x, const LinearArgs& args);

// Head and token cross-entropy where a label exists, one chunk of rows at a time; logits are never whole.
//   loss = weight · Σ_i -log softmax(h[rows[i]] · Wᵀ)[labels[i]]
// rows, labels I32 [n] on the host, rows ascending; n may be 0. The gradient of h is made during the forward
// (the softmax is at hand) and handed on in backward, so the result must be the root of the tape (its dy is
// 1).
struct HeadLoss {
  Variable loss;        // F32 [1], already times weight
  Tensor token_losses;  // F32 [n], plain -log p
};
HeadLoss head_cross_entropy(Context& cx, const Variable& h, const LinearArgs& head, const Tensor& rows,
                            const Tensor& labels, float weight, int64_t chunk_rows);
// The same with a head of one output and targets F32 [n]: loss = weight · Σ_i (h[rows[i]] · w - targets[i])².
HeadLoss head_squared_error(Context& cx, const Variable& h, const LinearArgs& head, const Tensor& rows,
                            const Tensor& targets, float weight);

}  // namespace nibble::ops
