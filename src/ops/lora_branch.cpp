#include "ops/lora_branch.h"

#include <functional>

#include "backend/kernels/elementwise.h"
#include "backend/kernels/matmul.h"
#include "ops/dropout_stream.h"

namespace nibble::ops {
namespace {

bool drops(const Context& cx, const LoraBranch& branch) { return cx.training && branch.dropout > 0; }

// The master itself, or a copy in the type of products.
Tensor product_form(Context& cx, const Tensor& master, std::string_view name) {
  const DType type = backend::product_dtype(cx.device(), cx.compute());
  if (master.dtype() == type) return master;
  Tensor copy = cx.empty(master.shape(), type, name);
  backend::accumulate(cx.stream(), master, copy, false);
  return copy;
}

void drop(Context& cx, const LoraBranch& branch, const Tensor& x, Tensor& out, uint64_t salt,
          bool accumulate) {
  backend::dropout(cx.stream(), x, branch.dropout, cx.seed,
                   dropout_stream(branch.dropout_stream + salt, cx.step), out, accumulate);
}

// dB += scale · dyᵀ · xa,  dA += dxaᵀ · u.
void factor_gradients(Context& cx, const LoraBranch& branch, Backward& b, const Tensor& dy, const Tensor& xa,
                      const Tensor& dxa, const std::function<Tensor()>& u) {
  if (branch.b.requires_grad()) {
    auto [db, accumulate] = b.target(branch.b.slot(), "lora.db");
    backend::thin_gradient(cx.stream(), xa, dy, db,
                           {.transpose_out = true, .accumulate = accumulate, .alpha = branch.scale});
  }
  if (branch.a.requires_grad()) {
    auto [da, accumulate] = b.target(branch.a.slot(), "lora.da");
    backend::thin_gradient(cx.stream(), dxa, u(), da, {.accumulate = accumulate});
  }
}

}  // namespace

bool fuses(const Context& cx, const std::vector<LoraBranch>& branches, int64_t tokens) {
  return branches.size() == 1 && branches[0].begin == 0 && branches[0].end == tokens &&
         !drops(cx, branches[0]) && tokens > 0 && backend::low_rank_matmul.has(cx.device());
}

LoraFused::LoraFused(Context& cx, const LoraBranch& branch)
    : cx_(cx),
      branch_(branch),
      a_(product_form(cx, branch.a.value(), "lora.a")),
      b_(product_form(cx, branch.b.value(), "lora.b")) {}

void LoraFused::forward(const Tensor& x, const backend::ProductLease& w, Tensor xa, Tensor y) {
  backend::low_rank_matmul(
      cx_.stream(), x, w.values(), a_, b_, xa, y,
      {.transpose = true, .fixed_point = w.fixed_point(), .beta = branch_.scale, .absmax = w.absmax()});
}

void LoraFused::beside(const Tensor& x, Tensor xa, Tensor y) {
  backend::matmul(cx_.stream(), x, a_, xa, {.transpose_b = true});
  backend::matmul(cx_.stream(), xa, b_, y, {.transpose_b = true, .accumulate = true, .alpha = branch_.scale});
}

void LoraFused::backward(Backward& b, const Tensor& dy, const backend::ProductLease* w, const Tensor& x,
                         const Tensor& xa, Tensor dx, bool accumulate) {
  Tensor dxa = cx_.empty({dy.size(0), a_.size(0)}, cx_.compute(), "lora.dxa");
  if (dx)
    backend::low_rank_matmul(cx_.stream(), dy, w->values(), b_, a_, dxa, dx,
                             {.accumulate = accumulate,
                              .fixed_point = w->fixed_point(),
                              .alpha = branch_.scale,
                              .absmax = w->absmax()});
  else
    backend::matmul(cx_.stream(), dy, b_, dxa, {.alpha = branch_.scale});
  factor_gradients(cx_, branch_, b, dy, xa, dxa, [&] { return x; });
}

LoraDown::LoraDown(Context& cx, const LoraBranch& branch, int64_t rows, backend::FixedPoint fixed_point)
    : cx_(cx), branch_(branch), fixed_point_(fixed_point) {
  a_ = product_form(cx, branch.a.value(), "lora.a");
  if (drops(cx, branch)) dropped_ = cx.empty({rows, branch.a.size(1)}, cx.compute(), "lora.dropped");
}

void LoraDown::operator()(const Tensor& x, Tensor xa, uint64_t salt) {
  Tensor u = x;
  if (dropped_) {
    u = dropped_.rows(0, x.size(0));
    drop(cx_, branch_, x, u, salt, false);
  }
  backend::matmul(cx_.stream(), u, a_, xa, {.transpose_b = true, .fixed_point = fixed_point_});
}

LoraUp::LoraUp(Context& cx, const LoraBranch& branch)
    : cx_(cx), scale_(branch.scale), b_(product_form(cx, branch.b.value(), "lora.b")) {}

void LoraUp::operator()(const Tensor& xa, Tensor y) {
  backend::matmul(cx_.stream(), xa, b_, y, {.transpose_b = true, .accumulate = true, .alpha = scale_});
}

LoraBackward::LoraBackward(Context& cx, const LoraBranch& branch, int64_t rows, bool wants_dx)
    : cx_(cx), branch_(branch) {
  const int64_t rank = branch.a.size(0), in = branch.a.size(1);
  b_ = product_form(cx, branch.b.value(), "lora.b");
  if (wants_dx) a_ = product_form(cx, branch.a.value(), "lora.a");
  dxa_ = cx.empty({rows, rank}, cx.compute(), "lora.dxa");
  if (drops(cx, branch)) {
    dropped_ = cx.empty({rows, in}, cx.compute(), "lora.dropped");
    if (wants_dx) du_ = cx.empty({rows, in}, cx.compute(), "lora.du");
  }
}

void LoraBackward::operator()(Backward& b, const Tensor& dy, const Tensor& x, const Tensor& xa, Tensor dx,
                              uint64_t salt) {
  const int64_t n = dy.size(0);
  Tensor dxa = dxa_.rows(0, n);
  backend::matmul(cx_.stream(), dy, b_, dxa, {.alpha = branch_.scale});
  factor_gradients(cx_, branch_, b, dy, xa, dxa, [&] {
    if (!dropped_) return x;
    Tensor u = dropped_.rows(0, n);
    drop(cx_, branch_, x, u, salt, false);
    return u;
  });
  if (!dx) return;
  if (!du_) return backend::matmul(cx_.stream(), dxa, a_, dx, {.accumulate = true});
  Tensor du = du_.rows(0, n);
  backend::matmul(cx_.stream(), dxa, a_, du, {});
  drop(cx_, branch_, du, dx, salt, true);
}

void check_branch(const LoraBranch& branch, int64_t in, int64_t out, int64_t tokens) {
  const Shape &a = branch.a.shape(), &b = branch.b.shape();
  require(a.rank() == 2 && b.rank() == 2 && a[1] == in && b[0] == out && a[0] == b[1], "lora",
          "A {} and B {} do not fit a weight [{}, {}]; is this another model's adapter?", a, b, out, in);
  require(0 <= branch.begin && branch.begin <= branch.end && branch.end <= tokens, "lora",
          "tokens {} to {} of {}", branch.begin, branch.end, tokens);
}

}  // namespace nibble::ops
