#include "cli/generation_options.h"

#include "cli/session.h"

namespace nibble::cli {

void GenerationOptions::declare(Options& options) {
  options.add("--max-new-tokens N", generate.max_new_tokens, "most tokens of an answer");
  options.add("--temperature T", generate.sampling.temperature, "0 takes the most probable token each time");
  options.add("--top-p P", generate.sampling.top_p,
              "draw from the fewest tokens that reach this probability; 1 is off");
  options.add("--top-k K", generate.sampling.top_k, "draw from the K most probable tokens; 0 is off");
  options.add("--repetition-penalty R", generate.sampling.repetition_penalty,
              "above 1: less of what the text already has");
  options.flag("--greedy", greedy, "the same as --temperature 0");
  options.add("--stop TEXT", generate.stop, "end the answer before this text; may be given several times");
  options.add("--context N", generate.context,
              "most tokens of prompt and answer; 0 is what the model was made for");
}

void GenerationOptions::check() const { generate.check(); }

eval::GenerateOptions GenerationOptions::for_session(const Session& session, int64_t seed) const {
  eval::GenerateOptions options = generate;
  if (greedy) options.sampling.temperature = 0;
  options.sampling.seed = static_cast<uint64_t>(seed);
  options.stop_ids = session.stop_ids();
  return options;
}

}  // namespace nibble::cli
