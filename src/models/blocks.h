// The walk through a model's blocks, which gradient checkpointing may run twice.
#pragma once
#include "autograd/recompute.h"
#include "nn/sequence.h"

namespace nibble::models {

// h after blocks 0 … layers - 1: h = block(cx, {h, beside…}, i). Under block checkpointing (and no cache)
// each keeps its inputs alone and runs again in backward, so `block` is kept and must own what it captures.
// `beside` is what all blocks read as well (the encoder's output, in a decoder). `name` must be a literal.
template <class Block>
autograd::Variable run_blocks(autograd::Context& cx, const char* name, int64_t layers,
                              const nn::KvCache* cache, std::vector<autograd::Variable> inputs,
                              const Block& block) {
  const bool again = cx.checkpointing == autograd::Checkpointing::kBlock && cache == nullptr;
  for (int64_t i = 0; i < layers; ++i) {
    const auto one = [block, i](autograd::Context& c, const std::vector<autograd::Variable>& in) {
      c.layer = i;
      return block(c, in, i);
    };
    inputs[0] = again ? autograd::recompute(cx, name, one, inputs) : one(cx, inputs);
  }
  cx.layer = -1;
  return inputs[0];
}

}  // namespace nibble::models
