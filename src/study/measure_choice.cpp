// MMLU and other multiple choice: accuracy in percent, or the loss of the right letter.
#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "eval/choice_data.h"
#include "study/measures.h"

namespace nibble::study {
namespace {

namespace fs = std::filesystem;

const std::vector<std::string> kValues = {"accuracy", "subject_mean", "loss"};

void check_common(const Json& options, const std::string& where) {
  needs_option(options, "data", where);
  json_get<std::string>(options, "data", where);
  option_among(options, "value", kValues, where);
  whole_option(options, "limit", 0, 0, INT64_MAX, where);
  whole_option(options, "context", 0, 0, INT64_MAX, where);
}

void check_mmlu(const Json& options, const std::string& where) {
  known_options(options,
                {"data", "split", "shots", "subjects", "limit", "context", "value", "reference_loss"}, where);
  check_common(options, where);
  option_among(options, "split", {"test", "val", "dev"}, where);
  whole_option(options, "shots", 5, 0, 5, where);
  json_get<std::vector<std::string>>(options, "subjects", {}, where);
  json_get<bool>(options, "reference_loss", false, where);
}

void check_choice(const Json& options, const std::string& where) {
  known_options(options, {"data", "shots_from", "shots", "limit", "context", "value"}, where);
  check_common(options, where);
  const int64_t shots = whole_option(options, "shots", 0, 0, INT64_MAX, where);
  if (shots > 0) needs_option(options, "shots_from", where);
}

double score(Subject& subject, const std::vector<eval::ChoiceSubject>& subjects, const Json& options,
             const std::string& where) {
  eval::ChoiceOptions how;
  how.context = json_get<int64_t>(options, "context", 0, where);
  how.reference_loss = json_get<bool>(options, "reference_loss", false, where);
  const auto answers =
      eval::answer_choices(subject.context(), subject.model(), subject.tokenizer(), subjects, how);
  eval::ChoiceScore all;
  double sum = 0;
  for (size_t i = 0; i < subjects.size(); ++i) {
    const eval::ChoiceScore one = eval::score_choices(subjects[i], answers[i], how);
    sum += one.accuracy();
    all.add(one);
  }
  const std::string value = option_among(options, "value", kValues, where);
  return value == "loss"       ? all.loss()
         : value == "accuracy" ? 100 * all.accuracy()
                               : 100 * sum / static_cast<double>(subjects.size());
}

double measure_mmlu(Subject& subject, const Json& options) {
  const std::string where = "measure mmlu";
  const auto data = json_get<std::string>(options, "data", where);
  const auto only = json_get<std::vector<std::string>>(options, "subjects", {}, where);
  const auto limit = json_get<int64_t>(options, "limit", 0, where);
  return score(subject,
               fs::is_directory(data)
                   ? eval::read_mmlu(data, json_get<std::string>(options, "split", "test", where),
                                     json_get<int64_t>(options, "shots", 5, where), only, limit)
                   : eval::read_mmlu_prompts(data, only, limit),
               options, where);
}

double measure_choice(Subject& subject, const Json& options) {
  const std::string where = "measure choice";
  return score(subject,
               eval::read_choices(json_get<std::string>(options, "data", where),
                                  json_get<std::string>(options, "shots_from", "", where),
                                  json_get<int64_t>(options, "shots", 0, where),
                                  json_get<int64_t>(options, "limit", 0, where)),
               options, where);
}

// MMLU's tables of the split and of dev, or the one file of prompts.
std::vector<std::string> mmlu_files(const Json& options) {
  const auto data = options["data"].get<std::string>();
  std::vector<std::string> files;
  std::error_code none;
  for (const std::string& split : {options.value("split", "test"), std::string("dev")})
    for (const auto& entry : fs::directory_iterator(fs::path(data) / split, none))
      files.push_back(entry.path().string());
  if (files.empty()) return {data};
  std::sort(files.begin(), files.end());
  return files;
}

std::vector<std::string> choice_files(const Json& options) {
  return {options["data"].get<std::string>(), options.value("shots_from", "")};
}

}  // namespace

const MeasureKind kMmlu = {"mmlu", false, check_mmlu, mmlu_files, measure_mmlu};
const MeasureKind kChoice = {"choice", false, check_choice, choice_files, measure_choice};

}  // namespace nibble::study
