// HH-RLHF (Bai et al. 2022): {"chosen": "\n\nHuman: …\n\nAssistant: …", "rejected": …}. The chosen dialogue
// is the example, and all of it is learned, as the QLoRA paper does; a model without chat template gets it as
// it stands.
#include "base/text.h"
#include "data/formats/layouts.h"

namespace nibble::data {
namespace {

bool matches(const Json& r) { return has_text(r, "chosen") && has_text(r, "rejected"); }

// Turns begin at a marker that stands at the start of a line after a blank one.
Json turns(const std::string& dialogue, const std::string& source) {
  constexpr std::string_view kHuman = "\n\nHuman:", kAssistant = "\n\nAssistant:";
  Json messages = Json::array();
  size_t at = 0;
  while (at < dialogue.size()) {
    const bool human = dialogue.compare(at, kHuman.size(), kHuman) == 0;
    require(human || dialogue.compare(at, kAssistant.size(), kAssistant) == 0, source,
            "\"chosen\" should be turns that begin with \"\\n\\nHuman:\" and \"\\n\\nAssistant:\"");
    const size_t begin = at + (human ? kHuman : kAssistant).size();
    at = std::min({dialogue.size(), dialogue.find(kHuman, begin), dialogue.find(kAssistant, begin)});
    const std::string content(trim(std::string_view(dialogue).substr(begin, at - begin)));
    const char* role = human ? "user" : "assistant";
    // Some dialogues have two turns of one speaker in a row, or an empty one: templates expect them to
    // alternate.
    if (!messages.empty() && messages.back()["role"] == role) {
      messages.back()["content"] = messages.back()["content"].get<std::string>() + "\n\n" + content;
    } else {
      messages.push_back({{"role", role}, {"content", content}});
    }
  }
  return messages;
}

std::vector<Example> read(const std::vector<Json>& records, const std::vector<std::string>& sources,
                          const FormatOptions& options) {
  std::vector<Example> examples;
  for (size_t i = 0; i < records.size(); ++i) {
    const std::string chosen = text_field(records[i], "chosen", sources[i]);
    Example e;
    if (options.has_chat_template) {
      e = conversation(turns(chosen, sources[i]), sources[i]);
      e.train_all = true;
    } else {
      e.source = sources[i];
      e.segments = {{chosen, true}};
    }
    examples.push_back(std::move(e));
  }
  return examples;
}

}  // namespace

const DataFormat kHhRlhf = {"hh_rlhf", "{\"chosen\", \"rejected\"}; the chosen dialogue is learned whole",
                            matches, read};

}  // namespace nibble::data
