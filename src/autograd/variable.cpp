#include "autograd/variable.h"

namespace nibble::autograd {

Saved::Saved(Tensor value) : state_(std::make_shared<State>(State{std::move(value), nullptr})) {}
Saved::Saved(std::function<Tensor()> remake)
    : state_(std::make_shared<State>(State{Tensor(), std::move(remake)})) {}

const Tensor& Saved::get() const {
  if (!state_->value.defined()) {
    state_->value = state_->remake();
    state_->remake = nullptr;  // lets go of what it was made from
  }
  return state_->value;
}

Variable::Variable(Tensor value) : Variable(std::move(value), nullptr) {}

Variable::Variable(Tensor value, std::shared_ptr<GradSlot> slot) : state_(std::make_shared<State>()) {
  state_->shape = value.shape();
  state_->dtype = value.dtype();
  state_->value = std::move(value);
  state_->slot = std::move(slot);
}

Variable Variable::lazy(const Shape& shape, DType dtype, std::function<Tensor()> make,
                        std::shared_ptr<GradSlot> slot) {
  Variable v;
  v.state_ =
      std::make_shared<State>(State{shape, dtype, Tensor(), std::move(make), std::move(slot), Saved()});
  return v;
}

const Tensor& Variable::value() const {
  if (!state_->value.defined()) {
    state_->value = state_->make();
    state_->make = nullptr;
  }
  return state_->value;
}

void Variable::set_remake(std::function<Tensor()> remake) { state_->remade = Saved(std::move(remake)); }

Saved Variable::save() const { return state_->remade.defined() ? state_->remade : Saved(value()); }

Parameter make_parameter(std::string name, Tensor value) {
  auto slot = std::make_shared<GradSlot>();
  slot->shape = value.shape();
  slot->dtype = kF32;
  slot->parameter = true;
  return {std::move(name), Variable(std::move(value), std::move(slot))};
}

void allocate_grad(Parameter& parameter, Allocator& allocator) {
  GradSlot& slot = *parameter.variable.slot();
  const MemoryGroup group(allocator, "gradients");
  if (!slot.grad.defined()) slot.grad = Tensor::empty(allocator, slot.shape, kF32, "gradient");
}

}  // namespace nibble::autograd
