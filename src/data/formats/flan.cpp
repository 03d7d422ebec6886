// FLAN v2 (Longpre et al. 2023): {"inputs", "targets", "task_name", …}, as they stand; and the
// chain-of-thought members in the authors' own tables, .tsv without a row of names: question, answer,
// rationale ("\n" written as backslash n). Of those the question is the prompt, and "rationale\nTherefore,
// the answer is answer." is learned.
#include "base/text.h"
#include "data/formats/layouts.h"

namespace nibble::data {
namespace {

bool matches(const Json& r) {
  return (has_text(r, "inputs") && has_text(r, "targets")) ||
         (has_text(r, "question") && has_text(r, "answer") && has_text(r, "rationale"));
}

std::vector<Example> read(const std::vector<Json>& records, const std::vector<std::string>& sources,
                          const FormatOptions& options) {
  std::vector<Example> examples;
  for (size_t i = 0; i < records.size(); ++i) {
    const Json& r = records[i];
    std::string prompt, target;
    if (has_text(r, "rationale")) {
      prompt = text_field(r, "question", sources[i]);
      target =
          fmt::format("{}\nTherefore, the answer is {}.", trim(r["rationale"].get_ref<const std::string&>()),
                      trim(text_field(r, "answer", sources[i])));
    } else {
      prompt = text_field(r, "inputs", sources[i]);
      target = text_field(r, "targets", sources[i]);
    }
    examples.push_back(prompt_and_completion(prompt, target, sources[i], options));
  }
  return examples;
}

}  // namespace

const DataFormat kFlan = {"flan",
                          "{\"inputs\", \"targets\"} or a chain-of-thought .tsv (question, answer, "
                          "rationale); the target is learned",
                          matches, read};

}  // namespace nibble::data
