// ShareGPT's layout: {"conversations": [{"from": "human" | "gpt" | "system", "value": "…"}, …]}.
#include "data/formats/layouts.h"

namespace nibble::data {
namespace {

bool matches(const Json& r) {
  return r.is_object() && r.contains("conversations") && r["conversations"].is_array() &&
         !r["conversations"].empty() && r["conversations"][0].is_object() &&
         r["conversations"][0].contains("from");
}

std::string role_of(const std::string& from, const std::string& where) {
  if (from == "human" || from == "user") return "user";
  if (from == "gpt" || from == "assistant" || from == "chatgpt" || from == "bing" || from == "bard")
    return "assistant";
  if (from == "system" || from == "tool") return from;
  fail(where, "unknown \"from\": \"{}\"; expected human, gpt or system", from);
}

std::vector<Example> read(const std::vector<Json>& records, const std::vector<std::string>& sources,
                          const FormatOptions&) {
  std::vector<Example> examples;
  for (size_t i = 0; i < records.size(); ++i) {
    require(records[i].is_object() && records[i].contains("conversations") &&
                records[i]["conversations"].is_array(),
            sources[i], "has no list \"conversations\"");
    Json messages = Json::array();
    if (const std::string system = optional_text(records[i], "system", sources[i]); !system.empty())
      messages.push_back({{"role", "system"}, {"content", system}});
    for (const Json& turn : records[i]["conversations"])
      messages.push_back({{"role", role_of(text_field(turn, "from", sources[i]), sources[i])},
                          {"content", text_field(turn, "value", sources[i])}});
    examples.push_back(conversation(std::move(messages), sources[i]));
  }
  return examples;
}

}  // namespace

const DataFormat kShareGpt = {
    "sharegpt",
    "{\"conversations\": [{\"from\": \"human\" | \"gpt\", \"value\"}, …]}; gpt's turns are learned", matches,
    read};

}  // namespace nibble::data
