// Chip2 of OIG (LAION 2023): {"text": "<human>: …\n<bot>: …"}. As the reference reads it, the prompt is what
// stands before the first "\n<bot>: " without "<human>: ", the response what stands between it and the next
// one.
#include "data/formats/layouts.h"

namespace nibble::data {
namespace {

constexpr std::string_view kHuman = "<human>: ", kBot = "\n<bot>: ";

bool matches(const Json& r) {
  if (!has_text(r, "text")) return false;
  const std::string& text = r["text"].get_ref<const std::string&>();
  return text.starts_with(kHuman) && text.find(kBot) != std::string::npos;
}

std::vector<Example> read(const std::vector<Json>& records, const std::vector<std::string>& sources,
                          const FormatOptions& options) {
  std::vector<Example> examples;
  for (size_t i = 0; i < records.size(); ++i) {
    const std::string text = text_field(records[i], "text", sources[i]);
    const size_t bot = text.find(kBot);
    require(bot != std::string::npos, sources[i], "\"text\" has no line that begins with \"<bot>: \"");
    std::string prompt = text.substr(0, bot);
    for (size_t at; (at = prompt.find(kHuman)) != std::string::npos;) prompt.erase(at, kHuman.size());
    const size_t begin = bot + kBot.size(), end = text.find(kBot, begin);
    examples.push_back(prompt_and_completion(prompt, text.substr(begin, end - begin), sources[i], options));
  }
  return examples;
}

}  // namespace

const DataFormat kChip2 = {"chip2", "{\"text\": \"<human>: …\\n<bot>: …\"}; the bot's text is learned",
                           matches, read};

}  // namespace nibble::data
