// Unnatural Instructions (Honovich et al. 2022): {"instruction", "instances": [{"instruction_with_input",
// "input", "constraints", "output"}, …]} (core), and in the full set also "reformulations", paraphrases in
// the same layout. The prompt is instruction_with_input as it stands.
#include "data/formats/layouts.h"

namespace nibble::data {
namespace {

bool core(const Json& r) {
  return r.is_object() && r.contains("instances") && r["instances"].is_array() && !r["instances"].empty() &&
         has_text(r["instances"][0], "instruction_with_input");
}
bool full(const Json& r) { return core(r) && r.contains("reformulations"); }

void add(const Json& list, const char* key, const std::string& source, const FormatOptions& options,
         std::vector<Example>& examples) {
  require(list.is_array(), source, "\"{}\" should be a list, got {}", key, list.type_name());
  for (const Json& instance : list) {
    const std::string prompt = text_field(instance, "instruction_with_input", source);
    examples.push_back(
        prompt_and_completion(prompt, text_field(instance, "output", source), source, options));
  }
}

std::vector<Example> read_part(const std::vector<Json>& records, const std::vector<std::string>& sources,
                               const FormatOptions& options, bool reformulations) {
  std::vector<Example> examples;
  for (size_t i = 0; i < records.size(); ++i) {
    const Json& r = records[i];
    require(r.is_object() && r.contains("instances"), sources[i], "has no list \"instances\"");
    add(r["instances"], "instances", sources[i], options, examples);
    // Only some tasks were paraphrased; the others have null there, or nothing.
    if (reformulations && r.contains("reformulations") && !r["reformulations"].is_null())
      add(r["reformulations"], "reformulations", sources[i], options, examples);
  }
  return examples;
}

std::vector<Example> read_core(const std::vector<Json>& records, const std::vector<std::string>& sources,
                               const FormatOptions& options) {
  return read_part(records, sources, options, false);
}
std::vector<Example> read_full(const std::vector<Json>& records, const std::vector<std::string>& sources,
                               const FormatOptions& options) {
  return read_part(records, sources, options, true);
}

}  // namespace

const DataFormat kUnnaturalCore = {
    "unnatural_core", "{\"instances\": [{\"instruction_with_input\", \"output\"}]}; outputs are learned",
    core, read_core};
const DataFormat kUnnaturalFull = {
    "unnatural_full", "the same with \"reformulations\", which are examples too", full, read_full};

}  // namespace nibble::data
