// Self-Instruct (Wang et al. 2022) as it is published for fine-tuning: {"prompt", "completion"} where prompts
// end with "Output:" and completions with GPT-3's end mark, which is taken off. Its seed tasks have Alpaca's
// layout.
#include "base/text.h"
#include "data/formats/layouts.h"

namespace nibble::data {
namespace {

bool matches(const Json& r) {
  return has_text(r, "prompt") && has_text(r, "completion") &&
         trim(r["prompt"].get_ref<const std::string&>()).ends_with("Output:") &&
         r["completion"].get_ref<const std::string&>().ends_with("<|endoftext|>");
}

std::vector<Example> read(const std::vector<Json>& records, const std::vector<std::string>& sources,
                          const FormatOptions& options) {
  std::vector<Example> examples;
  for (size_t i = 0; i < records.size(); ++i) {
    const std::string prompt = text_field(records[i], "prompt", sources[i]);
    examples.push_back(
        prompt_and_completion(prompt, text_field(records[i], "completion", sources[i]), sources[i], options));
  }
  return examples;
}

}  // namespace

const DataFormat kSelfInstruct = {
    "self_instruct",
    "{\"prompt\": \"… Output:\", \"completion\": \"…<|endoftext|>\"}; the completion is learned", matches,
    read};

}  // namespace nibble::data
