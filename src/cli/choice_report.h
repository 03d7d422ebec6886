// What `eval mmlu` and `eval choice` share.
#pragma once
#include <string>
#include <vector>

#include "eval/choice.h"

namespace nibble::cli {

class Session;

// Asks every question (done, time left and speed go to a terminal's standard error) and prints the results by
// subject, by category (where mmlu_category() knows one) and over all: "accuracy" of all questions,
// "subject_mean" of subjects, counts of shots that were removed, "loss"; as one JSON document or as a table.
// `answers`, unless empty, gets a line per question: source, subject, logits, chosen, answer, shots.
void report_choices(Session& session, std::vector<eval::ChoiceSubject> subjects,
                    const eval::ChoiceOptions& options, const std::string& answers, bool json);

}  // namespace nibble::cli
