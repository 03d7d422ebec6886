// The tape: what must run backward, in order. It is freed while backward walks it.
//
// An operation records itself after its forward:
//   cx.tape()->record("rms_norm", y, [=](Backward& b) { … b.dy() … b.target(x.slot()) … });
// and records nothing when no input requires a gradient (Context::differentiates).
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "autograd/variable.h"

namespace nibble::autograd {

class Context;

// Where a gradient contribution goes. accumulate: add to what is there; otherwise write.
struct GradTarget {
  Tensor grad;
  bool accumulate;
};

class Backward {
 public:
  Backward(Context& cx, Tensor dy) : cx_(cx), dy_(std::move(dy)) {}
  Context& cx() { return cx_; }
  const Tensor& dy() const { return dy_; }
  // Where an input's contribution goes. A null slot (the input needs no gradient) gives an undefined tensor.
  GradTarget target(const std::shared_ptr<GradSlot>& slot, std::string_view name);
  // Hands over `gradient`, which nobody writes to or reads afterwards: moved when it is the first
  // contribution to an intermediate of its dtype, else added (or cast).
  void give(const std::shared_ptr<GradSlot>& slot, Tensor gradient, std::string_view name);
  // Passes dy itself on to an input of the same shape: given when nobody else needs dy afterwards (`last`),
  // else copied or added.
  void pass(const std::shared_ptr<GradSlot>& slot, bool last, std::string_view name);

  // What this backward costs, for the observer; and every gradient it wrote.
  void cost(double flops, double bytes) { flops_ = flops, bytes_ = bytes; }
  double flops() const { return flops_; }
  double bytes() const { return bytes_; }
  const std::vector<Tensor>& results() const { return results_; }

 private:
  Context& cx_;
  Tensor dy_;
  double flops_ = 0, bytes_ = 0;
  std::vector<Tensor> results_;  // kept only for an observer
};

class Tape {
 public:
  using Function = std::function<void(Backward&)>;
  // `name` must be a literal. The output's slot is what backward reads dy from.
  void record(const char* name, const Variable& output, Function backward);

  // Walks everything recorded so far from the last to the first, starting with dy for `output`, and empties
  // the tape. A record whose output got no gradient is skipped. dy is given away: its memory may be reused.
  void backward(Context& cx, const Variable& output, Tensor dy);
  bool empty() const { return records_.empty(); }
  size_t size() const { return records_.size(); }

 private:
  struct Record {
    const char* name;
    std::shared_ptr<GradSlot> output;
    Function function;
  };
  std::vector<Record> records_;
};

}  // namespace nibble::autograd
