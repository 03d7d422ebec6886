// OpenAI's layout: {"messages": [{"role": "user", "content": "…"}, …]}. Assistant turns are learned.
#include "data/formats/layouts.h"

namespace nibble::data {
namespace {

bool matches(const Json& r) {
  return r.is_object() && r.contains("messages") && r["messages"].is_array() && !r["messages"].empty() &&
         r["messages"][0].is_object() && r["messages"][0].contains("role");
}

std::vector<Example> read(const std::vector<Json>& records, const std::vector<std::string>& sources,
                          const FormatOptions&) {
  std::vector<Example> examples;
  for (size_t i = 0; i < records.size(); ++i) {
    require(records[i].is_object() && records[i].contains("messages"), sources[i], "has no \"messages\"");
    examples.push_back(conversation(records[i]["messages"], sources[i]));
  }
  return examples;
}

}  // namespace

const DataFormat kMessages = {
    "messages", "{\"messages\": [{\"role\", \"content\"}, …]}; assistant turns are learned", matches, read};

}  // namespace nibble::data
