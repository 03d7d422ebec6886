// OASST1 (Köpf et al. 2023): conversation trees, one a line ({"message_tree_id", "prompt": {…, "replies":
// […]}}), or flat rows ({"message_id", "parent_id", "text", "role", "rank"}). The best reply of every level
// makes one conversation, and all of it is learned, as the QLoRA paper does. Deleted messages and those that
// reviewers refused are passed over.
#include <map>

#include "data/formats/layouts.h"

namespace nibble::data {
namespace {

bool is_tree(const Json& r) {
  return r.is_object() && r.contains("prompt") && r["prompt"].is_object() && r["prompt"].contains("replies");
}
bool is_row(const Json& r) { return has_text(r, "message_id") && has_text(r, "role") && has_text(r, "text"); }
bool matches(const Json& r) { return is_tree(r) || is_row(r); }

bool usable(const Json& m) {
  const auto is = [&](const char* key, bool value) {
    return m.contains(key) && m[key].is_boolean() && m[key].get<bool>() == value;
  };
  return !is("deleted", true) && !is("review_result", false);
}

// Lower is better; a message nobody ranked comes after those that were.
double rank_of(const Json& m) {
  return m.contains("rank") && m["rank"].is_number() ? m["rank"].get<double>() : 1e9;
}

Json message(const Json& m, const std::string& source) {
  const std::string role = text_field(m, "role", source);
  require(role == "prompter" || role == "assistant", source,
          "unknown role \"{}\"; expected prompter or assistant", role);
  return {{"role", role == "prompter" ? "user" : "assistant"}, {"content", text_field(m, "text", source)}};
}

// Walks down from `m` by the best of what children(m) gives.
template <class Children>
void add_conversation(const Json* m, const std::string& source, const Children& children,
                      std::vector<Example>& examples) {
  Json messages = Json::array();
  while (m != nullptr) {
    messages.push_back(message(*m, source));
    const Json* best = nullptr;
    for (const Json* child : children(*m))
      if (usable(*child) && (best == nullptr || rank_of(*child) < rank_of(*best))) best = child;
    m = best;
    require(messages.size() <= 1000, source,
            "a conversation of more than 1,000 messages; do its replies go in a circle?");
  }
  while (!messages.empty() && messages.back()["role"] != "assistant") messages.erase(messages.size() - 1);
  if (messages.empty()) return;  // a question that nobody answered
  examples.push_back(conversation(std::move(messages), source));
  examples.back().train_all = true;
}

std::vector<Example> read(const std::vector<Json>& records, const std::vector<std::string>& sources,
                          const FormatOptions&) {
  std::vector<Example> examples;
  std::map<std::string, std::vector<const Json*>> replies;
  std::vector<size_t> roots;
  for (size_t i = 0; i < records.size(); ++i) {
    const Json& r = records[i];
    if (is_tree(r)) {
      const auto children = [&](const Json& m) {
        std::vector<const Json*> list;
        if (m.contains("replies") && m["replies"].is_array())
          for (const Json& reply : m["replies"]) list.push_back(&reply);
        return list;
      };
      if (usable(r["prompt"])) add_conversation(&r["prompt"], sources[i], children, examples);
      continue;
    }
    require(is_row(r), sources[i],
            "is neither a tree (\"prompt\" with \"replies\") nor a row (\"message_id\", \"role\", \"text\")");
    if (has_text(r, "parent_id")) {
      replies[r["parent_id"].get<std::string>()].push_back(&r);
    } else if (usable(r)) {
      roots.push_back(i);
    }
  }
  for (const size_t i : roots)
    add_conversation(
        &records[i], sources[i], [&](const Json& m) { return replies[m["message_id"].get<std::string>()]; },
        examples);
  return examples;
}

}  // namespace

const DataFormat kOasst1 = {
    "oasst1", "OpenAssistant trees or rows; the best reply of every level, learned whole", matches, read};

}  // namespace nibble::data
