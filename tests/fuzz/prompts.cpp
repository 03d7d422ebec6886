// The JSONL of `generate --prompts` and `eval match`.
#include "cli/jsonl.h"
#include "tests/fuzz/fuzz.h"

FUZZ_TARGET(prompts) {
  static const std::string path = nibble::fuzz::scratch("prompts.jsonl");
  nibble::fuzz::put(path, bytes);
  (void)nibble::cli::read_jsonl(path);
}
