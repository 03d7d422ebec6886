#include "cli/command.h"
#include "cli/commands.h"

namespace nibble::cli {

// The contents page of the program, in the order of `nibble --help`.
const std::vector<Command>& commands() {
  static const std::vector<Command> table = {
      {"generate", "write text with a model: one prompt or a file of them", run_generate},
      {"chat", "talk to a model", run_chat},
      {"eval ppl", "perplexity of a text or of the records of a file", run_eval_ppl},
      {"eval match", "share of reference answers given exactly, base and adapter side by side", run_eval_match},
  };
  return table;
}

}  // namespace nibble::cli
