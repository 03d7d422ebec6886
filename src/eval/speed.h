// How fast a model reads and writes, for `nibble bench`.
#pragma once
#include "eval/generate.h"

namespace nibble::eval {

struct GenerationSpeed {
  int64_t prompt = 0, written = 0, batch = 0;  // tokens of the prompt, of each answer; sequences at once
  // Tokens per second, medians: reading the prompt, writing one answer, writing `batch` answers at once.
  double prefill = 0, single = 0, many = 0;
};

// Greedy answers to random prompts; all three in turn, `rounds` times. The prompts depend on nothing but
// these numbers. Errors: Interrupted after Ctrl-C.
GenerationSpeed measure_generation(Generator& generator, int64_t vocab, int64_t prompt, int64_t written,
                                   int64_t batch, int rounds);

}  // namespace nibble::eval
