// Where a value stopped being finite: watches a micro-step that is run again, and names the first operation
// whose result has a NaN or an infinity, with its layer and direction.
#pragma once
#include <string>
#include <vector>

#include "autograd/context.h"

namespace nibble::train {

class NonfiniteSearch : public autograd::OpObserver {
 public:
  // Layers are read from cx.layer as forward operations run; the backward of an operation has the layer of
  // its forward.
  explicit NonfiniteSearch(const autograd::Context& cx) : cx_(cx) {}
  void on_op(const char* name, bool backward, const Tensor& result, double flops, double bytes) override;
  bool found() const { return !where_.empty(); }
  // "the backward of attention in layer 3 (element 17 of its result [24, 64] is nan)"
  const std::string& where() const { return where_; }

 private:
  const autograd::Context& cx_;
  std::vector<std::pair<std::string, int64_t>> forwards_;
  std::string last_backward_;
  int64_t last_layer_ = -1;
  std::string where_;
};

// Index of the first element that is not finite, or -1. F32 and BF16.
int64_t first_nonfinite(const Tensor& t);

}  // namespace nibble::train
