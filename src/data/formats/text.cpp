// Plain text: {"text": "…"}, a bare string, or a .txt file (one document). All of it is learned.
#include "data/formats/layouts.h"

namespace nibble::data {
namespace {

bool matches(const Json& r) { return r.is_string() || has_text(r, "text"); }

std::vector<Example> read(const std::vector<Json>& records, const std::vector<std::string>& sources,
                          const FormatOptions&) {
  std::vector<Example> examples;
  for (size_t i = 0; i < records.size(); ++i) {
    Example e;
    e.source = sources[i];
    e.segments = {
        {records[i].is_string() ? records[i].get<std::string>() : text_field(records[i], "text", sources[i]),
         true}};
    examples.push_back(std::move(e));
  }
  return examples;
}

}  // namespace

const DataFormat kText = {"text", "{\"text\"} or a .txt file; everything is learned", matches, read};

}  // namespace nibble::data
