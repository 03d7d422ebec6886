// Gradient checkpointing (Chen et al. 2016): a block keeps its inputs and runs its forward again in backward.
#pragma once
#include <functional>
#include <vector>

#include "autograd/context.h"

namespace nibble::autograd {

using Block = std::function<Variable(Context&, const std::vector<Variable>& inputs)>;

// y = block(inputs…), exactly as if called directly, gradients included (bit for bit): random numbers are
// counter-based and the second forward is the first one again. Its tail, whatever no saved value depends on,
// is not computed. Any number of inputs (a T5 decoder block shares the encoder's output). Under no tape it
// just calls the block.
Variable recompute(Context& cx, const char* name, const Block& block, const std::vector<Variable>& inputs);

}  // namespace nibble::autograd
