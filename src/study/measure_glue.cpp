// GLUE: the one number of a task, in percent.
#include <filesystem>

#include "base/error.h"
#include "data/glue.h"
#include "eval/glue.h"
#include "study/measures.h"

namespace nibble::study {
namespace {

constexpr const char* kWhere = "measure glue";

void check_glue(const Json& options, const std::string& where) {
  known_options(options, {"task", "data", "split", "every", "limit"}, where);
  for (const char* key : {"task", "data"}) needs_option(options, key, where);
  json_get<std::string>(options, "data", where);
  data::glue_task(json_get<std::string>(options, "task", where));
  option_among(options, "split", {"dev", "train", "test"}, where);
  whole_option(options, "every", 1, 1, INT64_MAX, where);
  whole_option(options, "limit", 0, 0, INT64_MAX, where);
}

// A file, or those of the split in the task's folder. What is missing is for the measurement to say.
std::vector<std::string> glue_paths(const Json& options) {
  const auto data = json_get<std::string>(options, "data", kWhere);
  if (!std::filesystem::is_directory(data)) return {data};
  try {
    return data::glue_files(data, json_get<std::string>(options, "task", kWhere),
                            json_get<std::string>(options, "split", "dev", kWhere));
  } catch (const Error&) {
    return {data};
  }
}

double measure_glue(Subject& subject, const Json& options) {
  eval::GlueOptions how;
  how.every = json_get<int64_t>(options, "every", 1, kWhere);
  how.limit = json_get<int64_t>(options, "limit", 0, kWhere);
  return 100 * eval::glue(subject.context(), subject.model(), subject.tokenizer(),
                          json_get<std::string>(options, "task", kWhere), glue_paths(options), how)
                   .score();
}

}  // namespace

const MeasureKind kGlue = {"glue", false, check_glue, glue_paths, measure_glue};

}  // namespace nibble::study
