// Files of one JSON value a line.
#pragma once
#include <string>
#include <vector>

#include "base/json.h"

namespace nibble::cli {

struct JsonLine {
  Json value;
  std::string where;  // "prompts.jsonl:17", for messages
};

// Blank lines are skipped. Errors: Error{"file:line"} for what is not JSON or not UTF-8; Error{file} when
// there is no value at all.
std::vector<JsonLine> read_jsonl(const std::string& path);

}  // namespace nibble::cli
