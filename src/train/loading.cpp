#include "train/loading.h"

namespace nibble::train {

DType compute_dtype(const Recipe& recipe) { return recipe.dtype == "f32" ? kF32 : kBF16; }

OptimizerOptions optimizer_options(const Recipe& recipe) {
  OptimizerOptions options = optimizer_named(recipe.optim);
  options.paged_memory = recipe.paged_memory;
  options.page_file = recipe.out + "/optimizer.pages";
  options.beta1 = recipe.adam_beta1;
  options.beta2 = recipe.adam_beta2;
  options.epsilon = recipe.adam_epsilon;
  options.momentum = recipe.sgd_momentum;
  options.weight_decay = recipe.weight_decay;
  return options;
}

std::unique_ptr<models::Model> load_base(const io::ModelFiles& files, const Recipe& recipe,
                                         backend::Stream& stream) {
  nn::LoadOptions options;
  options.quantize = quant::parse_quantize(recipe.quantize, recipe.double_quant, recipe.block_size);
  options.dense_dtype = compute_dtype(recipe);
  const MemoryGroup group(stream.allocator(), "base");
  return models::load_model(files, stream, options);
}

}  // namespace nibble::train
