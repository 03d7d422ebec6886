// GLUE's tasks as text to text, with T5's prompts and answers, or as texts with a label for a classifier;
// data/glue.h reads the files.
#include "data/glue.h"

#include "data/formats/layouts.h"

namespace nibble::data {
namespace {

std::vector<Example> read(const std::vector<Json>& records, const std::vector<std::string>& sources,
                          const FormatOptions& options) {
  std::vector<Example> examples;
  for (size_t i = 0; i < records.size(); ++i) {
    const GlueTask* task = nullptr;
    const GlueExample example = glue_record(records[i], options.glue_task, sources[i], task);
    require(example.label >= 0, sources[i], "has no label; a test split cannot be trained on");
    if (options.classify) {
      Example e;
      e.segments.push_back({example.first, false});
      if (task->second != nullptr) e.segments.push_back({example.second, false});
      e.label = example.label;
      e.task = task->name;
      e.source = sources[i];
      examples.push_back(std::move(e));
      continue;
    }
    examples.push_back(prompt_and_completion(glue_prompt(*task, example), glue_answer(*task, example.label),
                                             sources[i], options));
  }
  return examples;
}

}  // namespace

const DataFormat kGlue = {
    "glue", "one of GLUE's nine tasks (\"glue:rte\" names it); T5's prompts, the label in words is learned",
    is_glue_record, read};

}  // namespace nibble::data
