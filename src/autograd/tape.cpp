#include "autograd/tape.h"

#include "autograd/context.h"
#include "backend/kernels/elementwise.h"

namespace nibble::autograd {

GradTarget Backward::target(const std::shared_ptr<GradSlot>& slot, std::string_view name) {
  const bool accumulate = slot->filled;
  if (!slot->grad.defined()) slot->grad = cx_.empty(slot->shape, slot->dtype, name);
  slot->filled = true;
  return {slot->grad, accumulate};
}

void Backward::pass(const std::shared_ptr<GradSlot>& slot, bool last, std::string_view name) {
  require(slot->shape == dy_.shape(), name, "gradient {} for a value {}", dy_.shape().str(), slot->shape.str());
  if (last && !slot->filled && !slot->parameter && slot->dtype == dy_.dtype()) {
    slot->grad = dy_;
    slot->filled = true;
    return;
  }
  GradTarget t = target(slot, name);
  backend::accumulate(cx_.stream(), dy_, t.grad, t.accumulate);
}

void Tape::record(const char* name, const Variable& output, Function backward) {
  records_.push_back({name, output.slot(), std::move(backward)});
}

void Tape::backward(Context& cx, const Variable& output, Tensor dy) {
  require(output.requires_grad(), "backward", "nothing here is trainable; did the adapter match any layer?");
  output.slot()->grad = std::move(dy);
  output.slot()->filled = true;
  while (!records_.empty()) {
    Record record = std::move(records_.back());
    records_.pop_back();
    if (!record.output->filled) continue;
    Tensor grad = std::move(record.output->grad);
    record.output->grad = Tensor();
    record.output->filled = false;
    Backward b(cx, std::move(grad));
    record.function(b);
    cx.observe(record.name, true, b.dy());
  }
}

}  // namespace nibble::autograd
