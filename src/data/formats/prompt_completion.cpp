// A prompt and what should follow it: {"prompt", "completion"}, {"prompt", "response"}, {"input", "output"}
// or
// {"question", "answer"}. With a chat template they are a user's and an assistant's turn; without one the
// completion follows the prompt directly.
#include "data/formats/layouts.h"

namespace nibble::data {
namespace {

constexpr const char* kPairs[][2] = {
    {"prompt", "completion"}, {"prompt", "response"}, {"input", "output"}, {"question", "answer"}};

bool matches(const Json& r) {
  for (const auto& [prompt, completion] : kPairs)
    if (has_text(r, prompt) && has_text(r, completion)) return true;
  return false;
}

std::vector<Example> read(const std::vector<Json>& records, const std::vector<std::string>& sources,
                          const FormatOptions& options) {
  std::vector<Example> examples;
  for (size_t i = 0; i < records.size(); ++i) {
    const char* const* pair = kPairs[0];
    for (const auto& candidate : kPairs)
      if (has_text(records[i], candidate[0]) && has_text(records[i], candidate[1])) {
        pair = candidate;
        break;
      }
    const std::string prompt = text_field(records[i], pair[0], sources[i]),
                      completion = text_field(records[i], pair[1], sources[i]);
    examples.push_back(prompt_and_completion(prompt, completion, sources[i], options));
  }
  return examples;
}

}  // namespace

const DataFormat kPromptCompletion = {
    "prompt_completion",
    "{\"prompt\", \"completion\"} (or input/output, question/answer); the completion is learned", matches,
    read};

}  // namespace nibble::data
