#include <algorithm>
#include <optional>

#include "backend/kernels/cross_entropy.h"
#include "backend/kernels/elementwise.h"
#include "backend/kernels/matmul.h"
#include "backend/kernels/squared_error.h"
#include "backend/weight_lease.h"
#include "ops/check.h"
#include "ops/lora_branch.h"
#include "ops/ops.h"

namespace nibble::ops {
namespace {

using backend::LossGradient;

// What is made of a chunk of logits: the losses of its rows, and the gradient in the logits' place.
struct RowLoss {
  const char* op;
  DType labels;
  void (*kernel)(backend::Stream&, Tensor& logits, const Tensor& labels, float weight,
                 backend::LossGradient gradient, Tensor& losses);
  bool rounds = false;  // can it give the gradient as bf16?
};

bool on_host(const Tensor& t) { return t.raw() != nullptr && t.device() == Device::kCpu; }

void check_labels(const RowLoss& kind, const Tensor& rows, const Tensor& labels, int64_t tokens,
                  int64_t vocab) {
  require(rows.dtype() == kI32 && labels.dtype() == kind.labels && rows.numel() == labels.numel(), kind.op,
          "rows {} and labels {} should be i32 and {} of equal length", rows.shape(), labels.shape(),
          dtype_name(kind.labels));
  if (!on_host(rows) || !on_host(labels)) return;
  const auto* r = rows.data<int32_t>();
  for (int64_t i = 0; i < rows.numel(); ++i) {
    require(r[i] >= 0 && r[i] < tokens && (i == 0 || r[i] > r[i - 1]), kind.op,
            "row {} is {}: rows should ascend within 0 … {}", i, r[i], tokens - 1);
    if (kind.labels != kI32) continue;
    const int32_t label = labels.data<int32_t>()[i];
    require(label >= -1 && label < vocab, kind.op, "label {} is {}, the vocabulary has {}", i, label, vocab);
  }
}

// Part of a chunk's rows that lies in a branch's tokens: [first, last) within the chunk.
std::pair<int64_t, int64_t> part_of(const LoraBranch& branch, const Tensor& rows) {
  if (!on_host(rows)) return {0, rows.numel()};
  const auto *begin = rows.data<int32_t>(), *end = begin + rows.numel();
  const auto at = [&](int64_t token) { return std::lower_bound(begin, end, token) - begin; };
  return {at(branch.begin), at(branch.end)};
}

// One branch with all its memory for a chunk.
struct HeadBranch {
  HeadBranch(Context& cx, const LoraBranch& b, int64_t rows, bool gradient, bool wants_dx)
      : branch(b),
        down(cx, b, rows, backend::FixedPoint::kNone),
        up(cx, b),
        xa(cx.empty({rows, b.a.size(0)}, cx.compute(), "lora.xa")) {
    if (gradient) backward.emplace(cx, b, rows, wants_dx);
  }
  const LoraBranch& branch;
  LoraDown down;
  LoraUp up;
  Tensor xa;
  std::optional<LoraBackward> backward;
};

HeadLoss head_loss(Context& cx, const Variable& h, const LinearArgs& head, const Tensor& rows,
                   const Tensor& labels, float weight, int64_t chunk_rows, const RowLoss& kind) {
  const auto [tokens, width] = require_matrix(kind.op, h.shape());
  const int64_t vocab = head.weight->rows(), n = rows.numel(), capacity = std::min(chunk_rows, tokens);
  require(head.weight->cols() == width, kind.op, "h is {} but the head is {}", h.shape(), head.weight->shape);
  require(chunk_rows > 0, kind.op, "chunks of {} rows", chunk_rows);
  check_labels(kind, rows, labels, tokens, vocab);

  bool gradient = cx.differentiates({&h, &head.trainable, &head.bias});
  for (const LoraBranch& branch : head.lora) gradient = gradient || cx.differentiates({&branch.a, &branch.b});
  const bool wants_dh = gradient && h.requires_grad();

  // All memory before the loop: what is allocated must not depend on how many labels there are.
  backend::Stream& stream = cx.stream();
  Tensor loss = cx.empty({1}, kF32, "head.loss"), losses = cx.empty({n}, kF32, "head.token_losses");
  Tensor hc = cx.empty({capacity, width}, h.dtype(), "head.h"),
         logits = cx.empty({capacity, vocab}, kF32, "head.logits");
  Tensor dhc, dh, capped;
  if (gradient && head.softcap > 0) capped = cx.empty({capacity, vocab}, kF32, "head.capped_logits");
  if (wants_dh) {
    dhc = cx.empty({capacity, width}, h.dtype(), "head.dh_chunk");
    dh = cx.empty({tokens, width}, h.dtype(), "head.dh");
    backend::fill(stream, dh, 0);
  }
  std::vector<HeadBranch> branches;
  for (const LoraBranch& branch : head.lora) {
    check_branch(branch, width, vocab, tokens);
    branches.emplace_back(cx, branch, capacity, gradient, wants_dh);
  }
  Backward b(cx, Tensor());
  const backend::ProductLease w(stream, *head.weight, cx.compute());
  // Half of what is written and read again, where only a product that rounds it anyway reads it.
  const bool rounded = kind.rounds && wants_dh && on_host(logits) &&
                       w.fixed_point() == backend::FixedPoint::kNone && w.values().dtype() == kBF16 &&
                       backend::rounds_left_side(cx.device()) && branches.empty() && head.softcap <= 0 &&
                       !head.trainable.requires_grad() && !head.bias.requires_grad();

  for (int64_t begin = 0; begin < n; begin += capacity) {
    const int64_t m = std::min(capacity, n - begin);
    const Tensor chunk = rows.rows(begin, begin + m);
    Tensor x = hc.rows(0, m), scores = logits.rows(0, m), token_losses = losses.rows(begin, begin + m);
    backend::gather_rows(stream, h.value(), chunk, x);
    backend::matmul(stream, x, w.values(), scores,
                    {.transpose_b = true, .fixed_point = w.fixed_point(), .absmax = w.absmax()});
    if (head.bias.defined()) backend::add_bias(stream, scores, head.bias.value(), scores);
    for (HeadBranch& lora : branches) {
      const auto [first, last] = part_of(lora.branch, chunk);
      if (first == last) continue;
      lora.down(x.rows(first, last), lora.xa.rows(first, last), static_cast<uint64_t>(begin));
      lora.up(lora.xa.rows(first, last), scores.rows(first, last));
    }
    if (head.softcap > 0) backend::softcap(stream, scores, head.softcap, scores);
    Tensor kept = capped ? capped.rows(0, m) : Tensor();
    if (kept) backend::accumulate(stream, scores, kept, false);
    kind.kernel(stream, scores, labels.rows(begin, begin + m), weight,
                !gradient ? LossGradient::kNone
                : rounded ? LossGradient::kBF16
                          : LossGradient::kF32,
                token_losses);
    if (!gradient) continue;
    if (kept) backend::softcap_backward(stream, scores, kept, head.softcap, scores);

    // f32: products take it as it is. Rounded rows lie as far apart.
    const Tensor dy = rounded ? Tensor::borrow(scores.raw(), {m, 2 * vocab}, kBF16, nullptr) : scores;
    Tensor dx = wants_dh ? dhc.rows(0, m) : Tensor();
    if (wants_dh)
      backend::matmul(stream, dy, w.values(), dx, {.fixed_point = w.fixed_point(), .absmax = w.absmax()});
    for (HeadBranch& lora : branches) {
      const auto [first, last] = part_of(lora.branch, chunk);
      if (first < last)
        (*lora.backward)(b, dy.rows(first, last), x.rows(first, last), lora.xa.rows(first, last),
                         wants_dh ? dx.rows(first, last) : Tensor(), static_cast<uint64_t>(begin));
    }
    if (wants_dh) backend::scatter_add_rows(stream, dx, chunk, dh);
    if (head.trainable.requires_grad()) {
      auto dw = b.target(head.trainable.slot(), "head.dw");
      backend::matmul(stream, dy, x, dw.grad, {.transpose_a = true, .accumulate = dw.accumulate});
    }
    if (head.bias.requires_grad()) {
      auto db = b.target(head.bias.slot(), "head.db");
      backend::sum_rows(stream, dy, db.grad, db.accumulate);
    }
  }
  backend::sum_rows(stream, losses.reshape({n, 1}), loss, false);
  backend::scale(stream, loss, weight, loss, false);
  const double products = 1.0 + (wants_dh ? 1 : 0) + (head.trainable.requires_grad() ? 1 : 0);
  cx.observe(kind.op, false, loss, products * 2 * static_cast<double>(n * vocab) * static_cast<double>(width),
             static_cast<double>(head.weight->stored_bytes()) + 8.0 * static_cast<double>(n * vocab));

  Variable result = cx.result(loss, gradient);
  if (gradient)
    cx.tape()->record(kind.op, result, [dh, slot = h.slot()](Backward& back) {
      if (dh) back.give(slot, dh, "head.dh");
    });
  return {result, losses};
}

}  // namespace

HeadLoss head_cross_entropy(Context& cx, const Variable& h, const LinearArgs& head, const Tensor& rows,
                            const Tensor& labels, float weight, int64_t chunk_rows) {
  constexpr RowLoss kKind{
      "head_cross_entropy", kI32,
      [](backend::Stream& stream, Tensor& logits, const Tensor& l, float w, LossGradient gradient,
         Tensor& losses) { backend::cross_entropy(stream, logits, l, w, gradient, losses); },
      true};
  return head_loss(cx, h, head, rows, labels, weight, chunk_rows, kKind);
}

HeadLoss head_squared_error(Context& cx, const Variable& h, const LinearArgs& head, const Tensor& rows,
                            const Tensor& targets, float weight) {
  constexpr RowLoss kKind{"head_squared_error", kF32,
                          [](backend::Stream& stream, Tensor& scores, const Tensor& t, float w,
                             LossGradient gradient, Tensor& losses) {
                            backend::squared_error(stream, scores, t, w, gradient != LossGradient::kNone,
                                                   losses);
                          }};
  require(head.weight->rows() == 1, kKind.op, "the head gives {} scores where one is compared",
          head.weight->rows());
  return head_loss(cx, h, head, rows, targets, weight, h.size(0), kKind);
}

}  // namespace nibble::ops
