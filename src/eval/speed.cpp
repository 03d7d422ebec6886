#include "eval/speed.h"

#include <algorithm>

#include "base/error.h"
#include "base/process.h"
#include "base/rng.h"

namespace nibble::eval {
namespace {

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return (values[(n - 1) / 2] + values[n / 2]) / 2;
}

}  // namespace

GenerationSpeed measure_generation(Generator& generator, int64_t vocab, int64_t prompt, int64_t written,
                                   int64_t batch, int rounds) {
  uint64_t drawn = 0;
  const Rng rng(42, stream_id("bench.prompts"));
  // Different every time: a prompt that begins like the last one would not be read again.
  const auto prompts = [&](int64_t count, int64_t length) {
    std::vector<std::vector<int32_t>> list(static_cast<size_t>(count));
    for (auto& ids : list)
      for (int64_t i = 0; i < length; ++i)
        ids.push_back(static_cast<int32_t>(rng.below(drawn++, static_cast<uint64_t>(vocab))));
    return list;
  };
  const auto run = [&](int64_t count, int64_t length, int64_t answer) {
    GenerateOptions options;
    options.sampling.temperature = 0;
    options.max_new_tokens = answer;
    options.batch = count;
    generator.run(prompts(count, length), options);
    if (interrupted()) throw Interrupted("bench", "interrupted");  // what was cut short has no speed
    return generator.timing();
  };
  constexpr int64_t kShort = 16;  // prompt of those that write
  run(1, kShort, kShort);         // what is made once
  std::vector<double> prefill, single, many;
  for (int i = 0; i < rounds; ++i) {
    prefill.push_back(static_cast<double>(prompt) / run(1, prompt, 1).seconds);
    single.push_back(run(1, kShort, written).tokens_per_second());
    many.push_back(run(batch, kShort, written).tokens_per_second());
  }
  return {.prompt = prompt,
          .written = written,
          .batch = batch,
          .prefill = median(prefill),
          .single = median(single),
          .many = median(many)};
}

}  // namespace nibble::eval
