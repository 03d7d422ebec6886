#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "base/text.h"
#include "data/formats/layouts.h"

namespace nibble::data {

// In the order in which records are asked: a layout comes before those that its records would also match.
std::span<const DataFormat> data_formats() {
  static const DataFormat table[] = {kMessages,     kShareGpt, kOasst1,           kHhRlhf,        kGlue,
                                     kSuperNi,      kFlan,     kUnnaturalFull,    kUnnaturalCore, kAlpaca,
                                     kSelfInstruct, kLongForm, kPromptCompletion, kChip2,         kText};
  return table;
}

const DataFormat& choose_format(const Records& records, std::string_view name, const std::string& path) {
  std::vector<std::string> names;
  for (const DataFormat& f : data_formats()) names.emplace_back(f.name);
  name = name.substr(0, name.find(':'));  // what follows is for the reader: "super_ni:2", "glue:rte"
  if (name != "auto") {
    for (const DataFormat& f : data_formats())
      if (name == f.name) return f;
    const std::string near = nearest_name(name, names);
    throw UsageError("format",
                     fmt::format("\"{}\" is not a data format{}; known are auto, {}", name,
                                 near.empty() ? "" : "; did you mean " + near + "?", fmt::join(names, ", ")));
  }
  constexpr size_t kLook = 20;
  const size_t n = std::min(kLook, records.records.size());
  for (const DataFormat& f : data_formats())
    if (std::all_of(records.records.begin(), records.records.begin() + static_cast<int64_t>(n), f.matches))
      return f;
  std::set<std::string> fields;
  for (size_t i = 0; i < n; ++i)
    if (records.records[i].is_object())
      for (const auto& [key, value] : records.records[i].items()) fields.insert(key);
  fail(path,
       "no known layout fits its records (fields: {}); known are {}: rename the fields or name one with "
       "format:",
       fields.empty() ? "none" : fmt::format("{}", fmt::join(fields, ", ")), fmt::join(names, ", "));
}

bool has_text(const Json& record, const char* key) {
  return record.is_object() && record.contains(key) && record[key].is_string();
}

std::string text_field(const Json& record, const char* key, const std::string& source) {
  require(record.is_object(), source, "expected an object with \"{}\", got {}", key, record.type_name());
  require(record.contains(key), source, "has no \"{}\"", key);
  require(record[key].is_string(), source, "\"{}\" should be text, got {}", key, record[key].type_name());
  return record[key].get<std::string>();
}

Example prompt_and_completion(const std::string& prompt, std::string completion, const std::string& source,
                              const FormatOptions& options) {
  constexpr std::string_view kEnd = "<|endoftext|>";
  if (completion.ends_with(kEnd)) completion.resize(completion.size() - kEnd.size());
  if (options.has_chat_template)
    return conversation(Json::array({{{"role", "user"}, {"content", prompt}},
                                     {{"role", "assistant"}, {"content", completion}}}),
                        source);
  Example e;
  e.source = source;
  e.segments = {{prompt, false}, {completion, true}};
  return e;
}

std::string optional_text(const Json& record, const char* key, const std::string& source) {
  if (!record.is_object() || !record.contains(key) || record[key].is_null()) return "";
  return text_field(record, key, source);
}

Example conversation(Json messages, const std::string& source) {
  require(messages.is_array() && !messages.empty(), source, "expected a list of messages, got {}",
          messages.empty() ? "none" : messages.type_name());
  Example e;
  e.source = source;
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string where = fmt::format("{}, message {}", source, i + 1);
    const std::string role = text_field(messages[i], "role", where);
    const bool calls = messages[i].contains("tool_calls") && !messages[i]["tool_calls"].is_null();
    if (!calls && !(messages[i].contains("content") && messages[i]["content"].is_array()))
      text_field(messages[i], "content", where);
    require(role == "system" || role == "user" || role == "assistant" || role == "tool" ||
                role == "developer" || role == "function",
            where, "unknown role \"{}\"; expected system, user, assistant or tool", role);
    bool learn = role == "assistant";
    // A turn may say itself whether it is learned ("train": false, or OpenAI's "weight": 0); templates need
    // not see that.
    if (messages[i].contains("train")) learn = json_get<bool>(messages[i], "train", where);
    if (messages[i].contains("weight")) learn = json_get<double>(messages[i], "weight", where) > 0;
    e.turn_choices = messages[i].erase("train") + messages[i].erase("weight") > 0 || e.turn_choices;
    e.train_message.push_back(learn);
  }
  e.messages = std::move(messages);
  return e;
}

}  // namespace nibble::data
