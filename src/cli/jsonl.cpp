#include "cli/jsonl.h"

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"

namespace nibble::cli {

std::vector<JsonLine> read_jsonl(const std::string& path) {
  const std::string text = read_file(path);
  std::vector<JsonLine> lines;
  size_t number = 0;
  for (const std::string& line : split(text, '\n')) {
    const std::string where = fmt::format("{}:{}", path, ++number);
    if (!trim(line).empty()) lines.push_back({parse_json(line, where), where});
  }
  require(!lines.empty(), path, "the file holds no JSON line");
  return lines;
}

}  // namespace nibble::cli
