#include "autograd/tape.h"

#include "autograd/context.h"
#include "backend/kernels/elementwise.h"

namespace nibble::autograd {

GradTarget Backward::target(const std::shared_ptr<GradSlot>& slot, std::string_view name) {
  if (!slot) return {Tensor(), false};
  const bool accumulate = slot->filled;
  if (!slot->grad.defined()) slot->grad = cx_.empty(slot->shape, slot->dtype, name);
  slot->filled = true;
  if (cx_.observer != nullptr) results_.push_back(slot->grad);
  return {slot->grad, accumulate};
}

void Backward::give(const std::shared_ptr<GradSlot>& slot, Tensor gradient, std::string_view name) {
  require(slot->shape == gradient.shape(), name, "gradient {} for a value {}", gradient.shape(), slot->shape);
  if (!slot->filled && !slot->parameter && slot->dtype == gradient.dtype()) {
    slot->grad = std::move(gradient);
    slot->filled = true;
    if (cx_.observer != nullptr) results_.push_back(slot->grad);
    return;
  }
  GradTarget t = target(slot, name);
  backend::accumulate(cx_.stream(), gradient, t.grad, t.accumulate);
}

void Backward::pass(const std::shared_ptr<GradSlot>& slot, bool last, std::string_view name) {
  if (last) return give(slot, dy_, name);
  require(slot->shape == dy_.shape(), name, "gradient {} for a value {}", dy_.shape(), slot->shape);
  GradTarget t = target(slot, name);
  backend::accumulate(cx_.stream(), dy_, t.grad, t.accumulate);
}

void Tape::record(const char* name, const Variable& output, Function backward) {
  records_.push_back({name, output.slot(), std::move(backward)});
}

void Tape::backward(Context& cx, const Variable& output, Tensor dy) {
  require(output.requires_grad(), "backward", "nothing here is trainable; did the adapter match any layer?");
  Backward(cx, Tensor()).give(output.slot(), std::move(dy), "backward.dy");
  while (!records_.empty()) {
    Record record = std::move(records_.back());
    records_.pop_back();
    if (!record.output->filled) continue;
    Tensor grad = std::move(record.output->grad);
    record.output->grad = Tensor();
    record.output->filled = false;
    Backward b(cx, std::move(grad));
    record.function(b);
    if (cx.observer == nullptr) continue;
    if (b.results().empty()) cx.observe(record.name, true, b.dy(), b.flops(), b.bytes());
    for (size_t i = 0; i < b.results().size(); ++i)
      cx.observe(record.name, true, b.results()[i], i == 0 ? b.flops() : 0, i == 0 ? b.bytes() : 0);
  }
}

}  // namespace nibble::autograd
