// LongForm (Köksal et al. 2023): {"input", "output", "source", "subset"}; input and output stand as they are.
#include "data/formats/layouts.h"

namespace nibble::data {
namespace {

bool matches(const Json& r) { return has_text(r, "input") && has_text(r, "output") && has_text(r, "subset"); }

std::vector<Example> read(const std::vector<Json>& records, const std::vector<std::string>& sources,
                          const FormatOptions& options) {
  std::vector<Example> examples;
  for (size_t i = 0; i < records.size(); ++i) {
    const std::string prompt = text_field(records[i], "input", sources[i]);
    examples.push_back(
        prompt_and_completion(prompt, text_field(records[i], "output", sources[i]), sources[i], options));
  }
  return examples;
}

}  // namespace

const DataFormat kLongForm = {
    "longform", "{\"input\", \"output\", \"source\", \"subset\"}; the output is learned", matches, read};

}  // namespace nibble::data
