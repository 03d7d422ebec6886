// A value in a computation and the place where its gradient gathers.
//
// The tape keeps gradient slots, never values: an activation lives as long as somebody's Variable or Saved
// holds it. Three kinds: a constant (no slot), an intermediate (its gradient has the value's dtype and dies
// in backward), and a parameter (f32 gradient that stays, accumulated over micro-batches). Copies are
// shallow. Threading: one thread builds and walks a tape.
#pragma once
#include <functional>
#include <memory>

#include "tensor/tensor.h"

namespace nibble::autograd {

struct GradSlot {
  Shape shape;
  DType dtype = kF32;
  Tensor grad;          // undefined until the first contribution; a parameter's is allocated once
  bool filled = false;  // does `grad` hold a value yet?
  bool parameter = false;
};

// What an operation keeps for its backward: the tensor itself, or how to make it again (selective
// recomputation). Shared by all who saved the same variable; a remade value is kept until the last of them is
// gone.
class Saved {
 public:
  Saved() = default;
  explicit Saved(Tensor value);
  explicit Saved(std::function<Tensor()> remake);
  bool defined() const { return state_ != nullptr; }
  const Tensor& get() const;

 private:
  struct State {
    Tensor value;
    std::function<Tensor()> remake;
  };
  std::shared_ptr<State> state_;
};

class Variable {
 public:
  Variable() = default;
  // A constant.
  explicit Variable(Tensor value);
  // With a slot: the result of an operation that is differentiated, or a leaf.
  Variable(Tensor value, std::shared_ptr<GradSlot> slot);
  // A value that is computed when first asked for: the tail of a recomputed block, which often nobody asks
  // for.
  static Variable lazy(const Shape& shape, DType dtype, std::function<Tensor()> make,
                       std::shared_ptr<GradSlot> slot);

  bool defined() const { return state_ != nullptr; }
  const Tensor& value() const;  // runs a lazy one
  const Shape& shape() const { return state_->shape; }
  DType dtype() const { return state_->dtype; }
  int64_t size(int i) const { return state_->shape[i]; }

  bool requires_grad() const { return state_ && state_->slot; }
  const std::shared_ptr<GradSlot>& slot() const { return state_->slot; }

  // From here on save() keeps `remake` instead of the value (set by cheap operations under selective
  // checkpointing).
  void set_remake(std::function<Tensor()> remake);
  Saved save() const;

 private:
  struct State {
    Shape shape;
    DType dtype = kF32;
    Tensor value;
    std::function<Tensor()> make;
    std::shared_ptr<GradSlot> slot;
    Saved remade;
  };
  std::shared_ptr<State> state_;
};

// A trainable tensor with a name of its own: f32 master value, f32 gradient. Keyed (adapter, name) by whoever
// owns it.
struct Parameter {
  std::string name;   // "model.layers.0.self_attn.q_proj.lora_A.weight"
  Variable variable;  // value() is the master; slot()->parameter is true
  Tensor& grad() { return variable.slot()->grad; }
};
// Allocates nothing but the slot; the gradient buffer comes with the first backward or allocate_grad().
Parameter make_parameter(std::string name, Tensor value);
// The gradient's buffer, from memory that outlives a step (the step's own allocator may be an arena).
void allocate_grad(Parameter& parameter, Allocator& allocator);
// Forgets the gradient's values; the next contribution writes instead of adding. The buffer stays.
inline void clear_grad(Parameter& parameter) { parameter.variable.slot()->filled = false; }

}  // namespace nibble::autograd
