// The products of one LoRA branch over some rows, shared by linear() and head_cross_entropy().
//
// All memory is taken at construction, for at most `rows` rows, so that what is allocated depends neither on
// how many rows come nor on how many chunks they come in. A and B are cast from their f32 masters to the
// products' type once per object. `salt` (the number of the first row) sets the dropout masks of different
// chunks apart.
#pragma once
#include "backend/weight_lease.h"
#include "ops/ops.h"

namespace nibble::ops {

// xa = dropout(x) · Aᵀ.   x [n, in], xa [n, R] of the compute type. fixed_point: as the product beside it.
class LoraDown {
 public:
  LoraDown(Context& cx, const LoraBranch& branch, int64_t rows, backend::FixedPoint fixed_point);
  void operator()(const Tensor& x, Tensor xa, uint64_t salt);

 private:
  Context& cx_;
  const LoraBranch& branch_;
  backend::FixedPoint fixed_point_;
  Tensor a_, dropped_;
};

// Does the branch stand beside the base product for every row and without dropout? Then one pass over x
// serves both: LoraFused instead of the others.
bool fuses(const Context& cx, const std::vector<LoraBranch>& branches, int64_t tokens);

class LoraFused {
 public:
  LoraFused(Context& cx, const LoraBranch& branch);
  // xa = x · Aᵀ,  y = x · Wᵀ + scale · xa · Bᵀ.
  void forward(const Tensor& x, const backend::ProductLease& w, Tensor xa, Tensor y);
  // xa likewise, and y += scale · xa · Bᵀ where y holds x · Wᵀ already.
  void beside(const Tensor& x, Tensor xa, Tensor y);
  // dx (+)= dy · W + dxa · A with dxa = scale · dy · B, and the gradients of A and B. dx undefined: not
  // wanted, and w may be null.
  void backward(Backward& b, const Tensor& dy, const backend::ProductLease* w, const Tensor& x,
                const Tensor& xa, Tensor dx, bool accumulate);

 private:
  Context& cx_;
  const LoraBranch& branch_;
  Tensor a_, b_;
};

// y += scale · xa · Bᵀ.
class LoraUp {
 public:
  LoraUp(Context& cx, const LoraBranch& branch);
  void operator()(const Tensor& xa, Tensor y);

 private:
  Context& cx_;
  float scale_;
  Tensor b_;
};

// dB += scale · dyᵀ · xa,  dA += dxaᵀ · dropout(x),  dx += dropout(dxa · A) with dxa = scale · dy · B.
// dx undefined: not wanted. x is only read where dA is wanted.
class LoraBackward {
 public:
  LoraBackward(Context& cx, const LoraBranch& branch, int64_t rows, bool wants_dx);
  void operator()(Backward& b, const Tensor& dy, const Tensor& x, const Tensor& xa, Tensor dx, uint64_t salt);

 private:
  Context& cx_;
  const LoraBranch& branch_;
  Tensor a_, b_, dropped_, dxa_, du_;
};

// Shapes and rows of a branch beside a weight [out, in] over `tokens` rows. Errors: Error{"lora"}.
void check_branch(const LoraBranch& branch, int64_t in, int64_t out, int64_t tokens);

}  // namespace nibble::ops
