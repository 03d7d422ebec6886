// What a recipe's keys mean for the parts it is made of: the base model, the compute type, the optimizer.
#pragma once
#include <memory>

#include "models/model.h"
#include "train/optimizer.h"
#include "train/recipe.h"

namespace nibble::train {

DType compute_dtype(const Recipe& recipe);
OptimizerOptions optimizer_options(const Recipe& recipe);
// Allocations fall into the group "base".
std::unique_ptr<models::Model> load_base(const io::ModelFiles& files, const Recipe& recipe,
                                         backend::Stream& stream);

}  // namespace nibble::train
