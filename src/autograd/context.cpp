#include "autograd/context.h"

namespace nibble::autograd {

bool Context::differentiates(std::initializer_list<const Variable*> inputs) const {
  if (tape_ == nullptr) return false;
  for (const Variable* v : inputs)
    if (v != nullptr && v->defined() && v->requires_grad()) return true;
  return false;
}

std::shared_ptr<GradSlot> Context::new_slot(const Shape& shape, DType dtype) const {
  auto slot = std::make_shared<GradSlot>();
  slot->shape = shape;
  slot->dtype = dtype;
  return slot;
}

Variable Context::result(Tensor value, bool differentiated) const {
  auto slot = differentiated ? new_slot(value.shape(), value.dtype()) : nullptr;
  return {std::move(value), std::move(slot)};
}

}  // namespace nibble::autograd
