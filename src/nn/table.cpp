#include "nn/table.h"

#include "base/parallel.h"

namespace nibble::nn {

Tensor decode_master(const quant::Weight& weight, Allocator& allocator, std::string_view name) {
  const MemoryGroup group(allocator, "weights");
  Tensor master = Tensor::empty(allocator, weight.shape, kF32, name);
  if (master.raw() == nullptr) return master;
  auto* out = master.data<float>();
  const int64_t cols = weight.cols();
  parallel_for(weight.rows(), 16, [&](int64_t begin, int64_t end) {
    quant::decode_rows(weight, begin, end, out + begin * cols);
  });
  return master;
}

Table Table::f32(Allocator& allocator) const {
  return {name_, quant::dense_weight(decode_master(weight_, allocator, name_))};
}

void Table::make_trainable(Allocator& allocator) {
  if (parameter_.variable.defined()) return;
  const Tensor master = decode_master(weight_, allocator, "table");
  weight_ = quant::dense_weight(master);
  parameter_ = autograd::make_parameter(name_ + ".weight", master);
}

}  // namespace nibble::nn
