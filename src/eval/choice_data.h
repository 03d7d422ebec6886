// Multiple-choice data: the 57 subjects of MMLU as Hendrycks et al. publish them, the QLoRA reference's
// prompts, and any file of questions.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "eval/choice.h"

namespace nibble::eval {

// A folder with dev/, val/ and test/, each with <subject>_<split>.csv: question, four choices, letter; no row
// of names. Shots are the first of dev. `only`: subjects to read, none for all. `limit`: most questions of a
// subject, 0 for all. Errors: no such file (known subjects are named), rows that are not six fields, a letter
// outside A–D, an empty file, fewer rows in dev than shots.
std::vector<ChoiceSubject> read_mmlu(const std::string& folder, const std::string& split, int64_t shots,
                                     const std::vector<std::string>& only, int64_t limit);

// Records of {"subject", "input", "output"}: whole prompts and their letter (the reference's
// zero_shot_mmlu_val.json and its like), by subject in the order of the file.
std::vector<ChoiceSubject> read_mmlu_prompts(const std::string& path, const std::vector<std::string>& only,
                                             int64_t limit);

// Any file of questions (.jsonl, .json, .csv, .tsv). A record has a question ("question" or "input") and
// choices
// ("choices" or "options" as a list; ARC's {"text", "label"}; or fields "A", "B", …) and the answer ("answer"
// or "answerKey": a letter, a label, an index from 0 or the text of a choice); "subject" may group them. The
// first `shots` records of each subject in `shots_path` are its shots (shots_path may be empty: none).
std::vector<ChoiceSubject> read_choices(const std::string& path, const std::string& shots_path, int64_t shots,
                                        int64_t limit);

// "STEM", "humanities", "social sciences" or "other (business, health, misc.)"; nullopt for no subject of
// MMLU.
std::optional<std::string_view> mmlu_category(std::string_view subject);

}  // namespace nibble::eval
