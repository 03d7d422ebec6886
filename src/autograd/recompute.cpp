#include "autograd/recompute.h"

namespace nibble::autograd {
namespace {

// Sets a context's state and puts the old one back, also when the block throws.
template <class T>
class Swap {
 public:
  Swap(T& place, T value) : place_(place), old_(place) { place_ = value; }
  ~Swap() { place_ = old_; }
  Swap(const Swap&) = delete;
  Swap& operator=(const Swap&) = delete;

 private:
  T& place_;
  T old_;
};

class UseTape {
 public:
  UseTape(Context& cx, Tape* tape) : cx_(cx), old_(cx.tape()) { cx.set_tape(tape); }
  ~UseTape() { cx_.set_tape(old_); }
  UseTape(const UseTape&) = delete;
  UseTape& operator=(const UseTape&) = delete;

 private:
  Context& cx_;
  Tape* old_;
};

// Fresh leaves stand for the inputs, so that the inner tape ends there. A gradient that an input already has
// is lent to its leaf, so that contributions add up in the order of the plain tape; the same input twice is
// the same leaf, and a parameter is itself.
std::vector<Variable> lend(const Context& cx, const std::vector<Variable>& inputs) {
  std::vector<Variable> leaves;
  for (const Variable& v : inputs) {
    if (v.requires_grad() && v.slot()->parameter) {
      leaves.push_back(v);
      continue;
    }
    std::shared_ptr<GradSlot> slot;
    if (v.requires_grad()) {
      for (size_t j = 0; j < leaves.size() && !slot; ++j)
        if (inputs[j].slot() == v.slot()) slot = leaves[j].slot();
      if (!slot) {
        slot = cx.new_slot(v.shape(), v.dtype());
        slot->grad = v.slot()->grad;
        slot->filled = v.slot()->filled;
      }
    }
    leaves.emplace_back(v.value(), std::move(slot));
  }
  return leaves;
}

}  // namespace

Variable recompute(Context& cx, const char* name, const Block& block, const std::vector<Variable>& inputs) {
  if (cx.tape() == nullptr) return block(cx, inputs);

  Tensor value;
  {
    const UseTape no_tape(cx, nullptr);
    const Swap again(cx.will_recompute, true);
    const Swap eager(cx.lazy, false);
    value = block(cx, inputs).value();
  }
  // The block may hold parameters that no input leads to, so it is always recorded.
  Variable y = cx.result(value, true);
  cx.tape()->record(name, y, [block, inputs](Backward& b) {
    Context& c = b.cx();
    const std::vector<Variable> leaves = lend(c, inputs);
    {
      Tape inner;
      const UseTape tape(c, &inner);
      Variable again;
      {
        const Swap lazy(c.lazy, true);
        again = block(c, leaves);
        again = Variable(Tensor(), again.slot());  // what its value would be made from may go
      }
      if (again.requires_grad()) inner.backward(c, again, b.dy());
    }
    for (size_t i = 0; i < inputs.size(); ++i)
      if (inputs[i].requires_grad() && !inputs[i].slot()->parameter) {
        inputs[i].slot()->grad = leaves[i].slot()->grad;
        inputs[i].slot()->filled = leaves[i].slot()->filled;
      }
  });
  return y;
}

}  // namespace nibble::autograd
