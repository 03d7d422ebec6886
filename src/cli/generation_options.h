// The options of every command that writes text.
#pragma once
#include "cli/command.h"
#include "eval/generate.h"

namespace nibble::cli {

class Session;

struct GenerationOptions {
  eval::GenerateOptions generate;
  bool greedy = false;

  void declare(Options& options);
  // Errors: UsageError.
  void check() const;
  // With the stop tokens of the session's model and the seed filled in.
  eval::GenerateOptions for_session(const Session& session, int64_t seed) const;
};

}  // namespace nibble::cli
