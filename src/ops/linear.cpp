#include <algorithm>
#include <optional>

#include "backend/kernels/elementwise.h"
#include "backend/kernels/matmul.h"
#include "backend/kernels/matvec.h"
#include "backend/weight_lease.h"
#include "ops/check.h"
#include "ops/lora_branch.h"
#include "ops/ops.h"

namespace nibble::ops {
namespace {

bool few_rows(const Context& cx, int64_t rows) {
  return cx.inference() && rows <= backend::kMatvecRows && backend::weight_matvec.has(cx.device());
}

bool rounds(const Context& cx, const LinearArgs& args) {
  return cx.inference() && cx.generation != nullptr && cx.compute() == kBF16 &&
         backend::has_rounded_product(*args.weight) && backend::rounded_product.has(cx.device());
}

// In generation: is the product one of the kernels that read the stored form? Their memory follows no plan.
bool from_stored(const Context& cx, const Variable& x, const LinearArgs& args) {
  return cx.generation != nullptr && (few_rows(cx, x.size(0)) || rounds(cx, args));
}

void add_bias(Context& cx, const LinearArgs& args, Tensor& y) {
  if (args.bias.defined()) backend::add_bias(cx.stream(), y, args.bias.value(), y);
}

void base_product(Context& cx, const Tensor& x, const LinearArgs& args, Tensor& y) {
  if (few_rows(cx, x.size(0))) {
    backend::Matvec product{args.weight, y};
    backend::weight_matvec(cx.stream(), x, {&product, 1});
  } else {
    const backend::ProductLease w(cx.stream(), *args.weight, cx.compute());
    backend::matmul(cx.stream(), x, w.values(), y,
                    {.transpose_b = true, .fixed_point = w.fixed_point(), .absmax = w.absmax()});
  }
  add_bias(cx, args, y);
}

void check_shapes(const Variable& x, const LinearArgs& args) {
  const auto [tokens, in] = require_matrix("linear", x.shape());
  const quant::Weight& w = *args.weight;
  require(w.shape.rank() == 2 && w.cols() == in, "linear", "x is {} but the weight is {}", x.shape(),
          w.shape);
  require(!args.bias.defined() || args.bias.shape() == Shape{w.rows()}, "linear", "bias {} for {} outputs",
          args.bias.defined() ? args.bias.shape().str() : "", w.rows());
  for (const LoraBranch& branch : args.lora) check_branch(branch, in, w.rows(), tokens);
}

// FLOPs of the base product and of the branches, and the bytes that have to move.
struct Cost {
  double base, lora, bytes;
};
Cost cost_of(const LinearArgs& args, int64_t tokens) {
  const double in = static_cast<double>(args.weight->cols()), out = static_cast<double>(args.weight->rows());
  const double rows = static_cast<double>(tokens);
  double lora = 0;
  for (const LoraBranch& branch : args.lora)
    lora += 2 * static_cast<double>((branch.end - branch.begin) * branch.a.size(0)) * (in + out);
  return {2 * rows * in * out, lora,
          static_cast<double>(args.weight->stored_bytes()) + 4 * rows * (in + out)};
}

// What backward keeps of each branch. xa of a fused one comes with the product, which a recomputed tail may
// not run.
struct SavedBranch {
  LoraBranch branch;
  Tensor xa;
  std::shared_ptr<bool> made;
};

// y and xa of a fused branch; the same bits for xa as down() gives.
void fused_product(Context& cx, const Tensor& x, const LinearArgs& args, const SavedBranch& s, Tensor& y) {
  LoraFused lora(cx, s.branch);  // its memory does not depend on how many rows there are
  *s.made = true;
  if (few_rows(cx, x.size(0))) {
    base_product(cx, x, args, y);
    return lora.beside(x, s.xa, y);
  }
  {
    const backend::ProductLease w(cx.stream(), *args.weight, cx.compute());
    lora.forward(x, w, s.xa, y);
  }
  add_bias(cx, args, y);
}

void down(Context& cx, const Tensor& x, const LinearArgs& args, const SavedBranch& s) {
  const auto fixed_point = beside(backend::fixed_point_of(*args.weight, cx.device(), cx.compute()));
  LoraDown lora(cx, s.branch, s.xa.size(0), fixed_point);
  lora(x.rows(s.branch.begin, s.branch.end), s.xa, static_cast<uint64_t>(s.branch.begin));
  *s.made = true;
}

// The same for few rows and no dropout: both factors are read once, as they are.
void branch_of_few(Context& cx, const Tensor& x, const LoraBranch& branch, const Tensor& xa, Tensor y) {
  const auto product = [&](const Variable& factor, const Tensor& in, const Tensor& out) {
    const quant::Weight w = quant::dense_weight(factor.value());
    backend::Matvec one{&w, out};
    backend::weight_matvec(cx.stream(), in, {&one, 1});
  };
  product(branch.a, x, xa);
  const Tensor more = cx.empty(y.shape(), kF32, "lora.y");
  product(branch.b, xa, more);
  backend::scale(cx.stream(), more, branch.scale, y, true);
}

// The branches where y holds the base product already.
void add_branches(Context& cx, const Tensor& x, const LinearArgs& args, Tensor& y) {
  for (const LoraBranch& branch : args.lora) {
    if (branch.begin == branch.end) continue;
    const Tensor rows = x.rows(branch.begin, branch.end),
                 xa = cx.empty({rows.size(0), branch.a.size(0)}, cx.compute(), "lora.xa");
    Tensor out = y.rows(branch.begin, branch.end);
    if (few_rows(cx, x.size(0)) && !(cx.training && branch.dropout > 0)) {
      branch_of_few(cx, rows, branch, xa, out);
    } else {
      LoraDown(cx, branch, rows.size(0), backend::FixedPoint::kNone)(rows, xa,
                                                                     static_cast<uint64_t>(branch.begin));
      LoraUp(cx, branch)(xa, out);
    }
  }
}

}  // namespace

Variable linear(Context& cx, const Variable& x, const LinearArgs& args) {
  if (from_stored(cx, x, args)) return linears(cx, x, {&args, 1})[0];
  check_shapes(x, args);
  const int64_t tokens = x.size(0), out = args.weight->rows();

  bool differentiated = cx.differentiates({&x, &args.trainable, &args.bias}),
       reads_x = args.trainable.requires_grad();
  const bool fused = fuses(cx, args.lora, tokens);
  std::vector<SavedBranch> branches;
  for (const LoraBranch& branch : args.lora) {
    if (branch.begin == branch.end) continue;
    differentiated = differentiated || cx.differentiates({&branch.a, &branch.b});
    reads_x = reads_x || branch.a.requires_grad() || (fused && branch.b.requires_grad());
    branches.push_back({branch,
                        cx.empty({branch.end - branch.begin, branch.a.size(0)}, cx.compute(), "lora.xa"),
                        std::make_shared<bool>(false)});
    if (!fused) down(cx, x.value(), args, branches.back());
  }

  const Cost cost = cost_of(args, tokens);
  const DType type = args.f32_output ? kF32 : cx.compute();
  const auto product = [&cx, x, args, branches, fused, cost, type] {
    Tensor y = cx.empty({x.size(0), args.weight->rows()}, type, "linear.y");
    if (fused)
      fused_product(cx, x.value(), args, branches[0], y);
    else
      base_product(cx, x.value(), args, y);
    if (!fused)
      for (const SavedBranch& s : branches) LoraUp(cx, s.branch)(s.xa, y.rows(s.branch.begin, s.branch.end));
    cx.observe("linear", false, y, cost.base + cost.lora, cost.bytes);
    return y;
  };
  if (!differentiated) return cx.result(product(), false);

  Variable y = cx.lazy ? Variable::lazy({tokens, out}, type, product, cx.new_slot({tokens, out}, type))
                       : cx.result(product(), true);
  autograd::Saved saved_x;
  if (reads_x) saved_x = x.save();
  cx.tape()->record("linear", y, [saved_x, slot = x.slot(), args, branches, fused, cost](Backward& b) {
    Context& c = b.cx();
    const Tensor& dy = b.dy();
    auto dx = b.target(slot, "linear.dx");
    const Tensor x_value = saved_x.defined() ? saved_x.get() : Tensor();
    if (fused && x_value && !*branches[0].made) down(c, x_value, args, branches[0]);
    std::optional<LoraFused> lora;
    if (fused) lora.emplace(c, branches[0].branch);
    std::optional<backend::ProductLease> weight;
    if (slot) weight.emplace(c.stream(), *args.weight, c.compute());
    if (fused) {
      lora->backward(b, dy, weight ? &*weight : nullptr, x_value, branches[0].xa, dx.grad, dx.accumulate);
    } else {
      if (slot)
        backend::matmul(
            c.stream(), dy, weight->values(), dx.grad,
            {.accumulate = dx.accumulate, .fixed_point = weight->fixed_point(), .absmax = weight->absmax()});
      for (const SavedBranch& s : branches) {
        const int64_t begin = s.branch.begin, end = s.branch.end;
        LoraBackward(c, s.branch, end - begin, slot != nullptr)(
            b, dy.rows(begin, end), x_value ? x_value.rows(begin, end) : Tensor(), s.xa,
            slot ? dx.grad.rows(begin, end) : Tensor(), static_cast<uint64_t>(begin));
      }
    }
    if (args.trainable.requires_grad()) {
      auto dw = b.target(args.trainable.slot(), "linear.dw");
      backend::matmul(c.stream(), dy, x_value, dw.grad, {.transpose_a = true, .accumulate = dw.accumulate});
    }
    if (args.bias.requires_grad()) {
      auto db = b.target(args.bias.slot(), "linear.db");
      backend::sum_rows(c.stream(), dy, db.grad, db.accumulate);
    }
    b.cost(cost.base * ((slot ? 1 : 0) + (args.trainable.requires_grad() ? 1 : 0)) + 2 * cost.lora,
           cost.bytes);
  });
  return y;
}

std::vector<Variable> linears(Context& cx, const Variable& x, std::span<const LinearArgs> layers) {
  std::vector<Variable> results(layers.size());
  std::vector<backend::Matvec> exact;
  std::vector<backend::RoundedMatvec> rounded;
  std::vector<Tensor> values(layers.size());
  for (size_t i = 0; i < layers.size(); ++i) {
    const LinearArgs& args = layers[i];
    if (!from_stored(cx, x, args)) {
      results[i] = linear(cx, x, args);
      continue;
    }
    check_shapes(x, args);
    values[i] = cx.empty({x.size(0), args.weight->rows()}, args.f32_output ? kF32 : cx.compute(), "linear.y");
    if (rounds(cx, args))
      rounded.push_back({args.weight, &cx.generation->of(cx.stream(), *args.weight), values[i]});
    else
      exact.push_back({args.weight, values[i]});
  }
  if (!exact.empty()) backend::weight_matvec(cx.stream(), x.value(), exact);
  if (!rounded.empty()) backend::rounded_product(cx.stream(), x.value(), rounded);
  for (size_t i = 0; i < layers.size(); ++i) {
    Tensor& y = values[i];
    if (!y.defined()) continue;
    add_bias(cx, layers[i], y);
    add_branches(cx, x.value(), layers[i], y);
    const Cost cost = cost_of(layers[i], x.size(0));
    cx.observe("linear", false, y, cost.base + cost.lora, cost.bytes);
    results[i] = cx.result(std::move(y), false);
  }
  return results;
}

}  // namespace nibble::ops
