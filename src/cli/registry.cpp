#include "cli/command.h"
#include "cli/commands.h"

namespace nibble::cli {

// The contents page of the program, in the order of `nibble --help`. Rows appear as their files do.
const std::vector<Command>& commands() {
  static const std::vector<Command> table = {};
  return table;
}

}  // namespace nibble::cli
