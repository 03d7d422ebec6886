// Super-NaturalInstructions (Wang et al. 2022): one file per task, {"Definition": ["…"], "Positive Examples":
// [{"input", "output", …}], "Instances": [{"input", "output": ["…", …]}]}. The prompt is Tk-Instruct's: the
// definition, k positive examples, then the input; the first output is learned. "super_ni:k" sets k, which is
// 2 otherwise.
#include "data/formats/layouts.h"

namespace nibble::data {
namespace {

bool matches(const Json& r) {
  return r.is_object() && r.contains("Definition") && r.contains("Instances") && r["Instances"].is_array();
}

// string.punctuation of Python.
bool is_punctuation(char c) {
  return std::string_view("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~").find(c) != std::string_view::npos;
}

// Without white space around, and a full stop where no punctuation ends it. `lead` counts as part of it.
std::string sentence(std::string lead, std::string_view text) {
  constexpr const char* kSpace = " \t\n\r\f\v";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin != std::string_view::npos) lead += text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
  if (!is_punctuation(lead.back())) lead += '.';
  return lead;
}

std::string first_text(const Json& record, const char* key, const std::string& source) {
  require(record.is_object() && record.contains(key), source, "has no \"{}\"", key);
  const Json& value = record[key];
  require(value.is_string() || (value.is_array() && !value.empty() && value[0].is_string()), source,
          "\"{}\" should be text or a list of texts, got {}", key,
          value.empty() ? "none" : value.type_name());
  return value.is_string() ? value.get<std::string>() : value[0].get<std::string>();
}

std::string task_prompt(const Json& task, int64_t examples, const std::string& source) {
  std::string text = sentence("Definition: ", first_text(task, "Definition", source)) + "\n\n";
  if (examples == 0) return text;
  require(task.contains("Positive Examples") && task["Positive Examples"].is_array(), source,
          "has no list \"Positive Examples\"; ask for none with super_ni:0");
  int64_t number = 0;
  for (const Json& example : task["Positive Examples"]) {
    if (number == examples) break;
    text += fmt::format(" Positive Example {} -\n", ++number);
    text += sentence("Input: ", text_field(example, "input", source)) + "\n";
    text += sentence(" Output: ", text_field(example, "output", source)) + "\n\n";
  }
  return text;
}

std::vector<Example> read(const std::vector<Json>& records, const std::vector<std::string>& sources,
                          const FormatOptions& options) {
  std::vector<Example> examples;
  for (size_t i = 0; i < records.size(); ++i) {
    const Json& task = records[i];
    require(matches(task), sources[i], "is no task: it should have \"Definition\" and a list \"Instances\"");
    const std::string before = task_prompt(task, options.positive_examples, sources[i]);
    int64_t number = 0;
    for (const Json& instance : task["Instances"]) {
      if (number == options.instances_per_task) break;
      const std::string where = fmt::format("{}, instance {}", sources[i], ++number);
      const std::string prompt = before + "Now complete the following example -\n" +
                                 sentence("Input: ", text_field(instance, "input", where)) + "\nOutput: ";
      examples.push_back(
          prompt_and_completion(prompt, first_text(instance, "output", where), where, options));
    }
  }
  return examples;
}

}  // namespace

const DataFormat kSuperNi = {
    "super_ni",
    "a task file, or splits/…/train_tasks.txt; definition and k positive examples, the output is learned",
    matches, read};

}  // namespace nibble::data
