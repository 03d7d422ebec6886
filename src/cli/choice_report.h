// What `eval mmlu` and `eval choice` share: asking with progress shown, and the table of results.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "eval/choice.h"

namespace nibble::cli {

class Session;

struct ChoiceRun {
  std::vector<eval::ChoiceSubject> subjects;
  std::vector<std::vector<eval::ChoiceAnswer>> answers;
  double seconds = 0;
};

// Asks every question; done, time left and speed go to a terminal's standard error.
ChoiceRun ask_choices(Session& session, std::vector<eval::ChoiceSubject> subjects,
                      eval::ChoiceOptions options);

// Results by subject, by category (where mmlu_category() knows one) and over all: "accuracy" of all
// questions, "subject_mean" of subjects, counts of shots that were removed, "loss".
Json choice_results(const ChoiceRun& run, const eval::ChoiceOptions& options);
void print_choices(const Json& results);

// A line per question: source, subject, logits, chosen, answer, shots.
void write_choice_answers(const std::string& path, const ChoiceRun& run);

}  // namespace nibble::cli
