// Alpaca's layout (Taori et al. 2023): {"instruction", "input", "output"}; Self-Instruct's seed tasks carry
// input and output in "instances". With a chat template the instruction (and input) is the user's turn;
// without one the paper's prompt is used, as the reference implementation writes it.
#include "data/formats/layouts.h"

namespace nibble::data {
namespace {

bool matches(const Json& r) {
  return has_text(r, "instruction") &&
         (has_text(r, "output") || (r.contains("instances") && r["instances"].is_array()));
}

std::string prompt(const std::string& instruction, const std::string& input) {
  if (input.empty())
    return fmt::format(
        "Below is an instruction that describes a task. Write a response that appropriately completes the "
        "request.\n\n"
        "### Instruction:\n{}\n\n### Response: ",
        instruction);
  return fmt::format(
      "Below is an instruction that describes a task, paired with an input that provides further context. "
      "Write a response that "
      "appropriately completes the request.\n\n### Instruction:\n{}\n\n### Input:\n{}\n\n### Response: ",
      instruction, input);
}

Example make(const std::string& instruction, const std::string& input, const std::string& output,
             const std::string& source, const FormatOptions& options) {
  if (options.has_chat_template)
    return conversation(
        Json::array(
            {{{"role", "user"}, {"content", input.empty() ? instruction : instruction + "\n\n" + input}},
             {{"role", "assistant"}, {"content", output}}}),
        source);
  Example e;
  e.source = source;
  e.segments = {{prompt(instruction, input), false}, {output, true}};
  return e;
}

std::vector<Example> read(const std::vector<Json>& records, const std::vector<std::string>& sources,
                          const FormatOptions& options) {
  std::vector<Example> examples;
  for (size_t i = 0; i < records.size(); ++i) {
    const Json& r = records[i];
    const std::string instruction = text_field(r, "instruction", sources[i]);
    if (r.contains("instances") && r["instances"].is_array()) {
      for (const Json& instance : r["instances"])
        examples.push_back(make(instruction, optional_text(instance, "input", sources[i]),
                                text_field(instance, "output", sources[i]), sources[i], options));
    } else {
      examples.push_back(make(instruction, optional_text(r, "input", sources[i]),
                              text_field(r, "output", sources[i]), sources[i], options));
    }
  }
  return examples;
}

}  // namespace

const DataFormat kAlpaca = {"alpaca", "{\"instruction\", \"input\", \"output\"}; the output is learned",
                            matches, read};

}  // namespace nibble::data
