// Every kernel the CPU has.
#include "backend/cpu/kernels.h"

namespace nibble::backend {

void register_cpu_kernels() {
  constexpr Device d = Device::kCpu;
  fill.set(d, cpu::fill);
  accumulate.set(d, cpu::accumulate);
  add.set(d, cpu::add);
  add_bias.set(d, cpu::add_bias);
  sum_rows.set(d, cpu::sum_rows);
  scale.set(d, cpu::scale);
  activation.set(d, cpu::activation);
  activation_backward.set(d, cpu::activation_backward);
  gated.set(d, cpu::gated);
  gated_backward.set(d, cpu::gated_backward);
  softcap.set(d, cpu::softcap);
  softcap_backward.set(d, cpu::softcap_backward);
  take_columns.set(d, cpu::take_columns);
  add_columns.set(d, cpu::add_columns);
  dropout.set(d, cpu::dropout);
  gather_rows.set(d, cpu::gather_rows);
  scatter_rows.set(d, cpu::scatter_rows);
  scatter_add_rows.set(d, cpu::scatter_add_rows);
  sum_of_squares.set(d, cpu::sum_of_squares);
  matmul.set(d, cpu::matmul);
  low_rank_matmul.set(d, cpu::low_rank_matmul);
  thin_gradient.set(d, cpu::thin_gradient);
  rms_norm.set(d, cpu::rms_norm);
  rms_norm_backward.set(d, cpu::rms_norm_backward);
  layer_norm.set(d, cpu::layer_norm);
  layer_norm_backward.set(d, cpu::layer_norm_backward);
  rope.set(d, cpu::rope);
  attention.set(d, cpu::attention);
  attention_backward.set(d, cpu::attention_backward);
  embedding.set(d, cpu::embedding);
  embedding_backward.set(d, cpu::embedding_backward);
  cross_entropy.set(d, cpu::cross_entropy);
  squared_error.set(d, cpu::squared_error);
  adamw.set(d, cpu::adamw);
  adamw_8bit.set(d, cpu::adamw_8bit);
  sgd.set(d, cpu::sgd);
  lion.set(d, cpu::lion);
  cast.set(d, cpu::cast);
  decode_weight.set(d, cpu::decode_weight);
  encode_weight.set(d, cpu::encode_weight);
  weight_matvec.set(d, cpu::weight_matvec);
  group_rows.set(d, cpu::group_rows);
  rounded_product.set(d, cpu::rounded_product);
}

}  // namespace nibble::backend
