// GLUE's nine tasks (Wang et al. 2019) in the files they are published in: GLUE's own .tsv with a row of
// names, the original sets without one (CoLA, STS-B, sentence lists of SST-2), MRPC's .txt, and exports as
// JSON.
#pragma once
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/formats.h"

namespace nibble::data {

struct GlueTask {
  const char* name;                 // "cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"
  std::vector<std::string> labels;  // names of the classes; empty: a score from 0 to 5
  const char* first;                // what the texts are called in T5's prompt: "sentence", "premise" …
  const char* second;               // nullptr: there is one text
  bool scores() const { return labels.empty(); }
};

std::span<const GlueTask> glue_tasks();
// By any spelling in use: "sst2", "SST-2", "mnli_matched". Errors: UsageError with the known names.
const GlueTask& glue_task(std::string_view name);

struct GlueExample {
  std::string first, second;
  double label = -1;  // class number or score; -1: the split has no labels
  std::string source;
};

// The examples of one file. The task is `task`, or found: by the columns, else by the names of the file and
// its folders ("…/SST-2/train.tsv"). Errors: Error{file} when the task cannot be told, columns are missing or
// there is no row; Error{file:line} for a label outside the task's range.
std::vector<GlueExample> read_glue(const std::string& path, std::string_view task = {});

// The files of a split ("train", "dev", "test") in a task's folder; for mnli dev: matched, then mismatched.
// Errors: Error{folder} with the names that were looked for.
std::vector<std::string> glue_files(const std::string& folder, std::string_view task, std::string_view split);

// A class number or score as the answer in words, as T5 is trained on it (Raffel et al. 2020): "acceptable",
// "3.8".
std::string glue_answer(const GlueTask& task, double label);
// "rte sentence1: … sentence2: …"
std::string glue_prompt(const GlueTask& task, const GlueExample& example);

// For read_records(): the rows of a table of GLUE as {"glue", "first", "second", "label"}; nullopt when it is
// none.
std::optional<Records> glue_table(const std::string& path, std::string_view text, std::string_view task);
// Does a JSON record look like one of GLUE's?
bool is_glue_record(const Json& record);
// Such a record (of a table or of JSON) read. Errors as read_glue().
GlueExample glue_record(const Json& record, std::string_view task, const std::string& source,
                        const GlueTask*& found);

}  // namespace nibble::data
