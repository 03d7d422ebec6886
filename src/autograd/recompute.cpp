#include "autograd/recompute.h"

namespace nibble::autograd {

Variable recompute(Context& cx, const char* name, const Block& block, const std::vector<Variable>& inputs) {
  if (cx.tape() == nullptr) return block(cx, inputs);

  Tensor value;
  {
    const NoGrad no_grad(cx);
    value = block(cx, inputs).value();
  }
  // The block may hold parameters that no input leads to, so it is always recorded.
  Variable y = cx.result(value, true);
  cx.tape()->record(name, y, [block, inputs](Backward& b) {
    Context& c = b.cx();
    // Fresh leaves stand for the inputs, so that the inner tape ends there.
    std::vector<Variable> leaves;
    for (const Variable& v : inputs)
      leaves.emplace_back(v.value(), v.requires_grad() ? c.new_slot(v.shape(), v.dtype()) : nullptr);
    // A gradient that the input already has is lent to its leaf, so contributions add up in the order of the plain tape.
    for (size_t i = 0; i < inputs.size(); ++i)
      if (inputs[i].requires_grad()) {
        leaves[i].slot()->grad = inputs[i].slot()->grad;
        leaves[i].slot()->filled = inputs[i].slot()->filled;
      }
    Tape inner;
    Tape* const outer = c.tape();
    const bool lazy = c.lazy;
    c.set_tape(&inner);
    c.lazy = true;
    const Variable again = block(c, leaves);
    c.lazy = lazy;
    if (again.requires_grad()) inner.backward(c, again, b.dy());
    c.set_tape(outer);
    for (size_t i = 0; i < inputs.size(); ++i)
      if (inputs[i].requires_grad()) {
        inputs[i].slot()->grad = leaves[i].slot()->grad;
        inputs[i].slot()->filled = leaves[i].slot()->filled;
      }
  });
  return y;
}

}  // namespace nibble::autograd
