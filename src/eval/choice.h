// Multiple choice by the letters' logits: the prompt of MMLU (Hendrycks et al. 2021), k solved questions in
// front, one forward a question, and the answer is the letter with the largest logit after "Answer:".
//
// The questions of a subject begin alike (header and shots); those tokens are read once, their keys and
// values are copied into each slot of the cache, and many questions share a forward. A prompt that does not
// fit the context loses shots one at a time, from the last; without any left it loses its beginning.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "models/model.h"
#include "text/tokenizer.h"

namespace nibble::eval {

struct ChoiceQuestion {
  std::string question;
  std::vector<std::string> choices;  // 2 to 26
  int64_t answer = 0;                // index of the right one
  std::string source;                // "anatomy_test.csv:3" for messages to people
  std::string prompt;                // not empty: stands as it is, in place of header, shots and question
};

struct ChoiceSubject {
  std::string name;  // "abstract_algebra"
  std::vector<ChoiceQuestion> shots, questions;
};

struct ChoiceOptions {
  int64_t context = 0;  // most tokens of a prompt; 0: what the model was made for
  int64_t tokens_per_batch = 1024;
  // As the reference script scores its zero-shot file: a letter is the first token of the letter alone, BOS
  // goes in front where the tokenizer has one, and the loss counts the end token as well.
  bool reference_loss = false;
  std::function<void(int64_t done, int64_t questions)> progress;  // over all subjects; may be empty
};

struct ChoiceAnswer {
  std::vector<float> logits;  // of the letters
  int64_t chosen = 0;
  double nll = 0;      // -log p of the right letter among all tokens
  double end_nll = 0;  // reference_loss: of the end token after it
  int64_t shots = 0;   // that were left
  bool cut = false;    // the prompt lost its beginning
};

// "The following are multiple choice questions (with answers) about  abstract algebra.\n\n" (the two spaces
// are the original's); without a name the part from "about" on is left out.
std::string choice_header(const std::string& subject);
// "question\nA. …\nB. …\nAnswer:", and with_answer " B\n\n".
std::string choice_block(const ChoiceQuestion& question, bool with_answer);

// Answers of every subject's questions, in order. The adapters of `cx` are in force. Errors: a tokenizer
// whose letters do not differ in one token; a subject without questions; Interrupted.
std::vector<std::vector<ChoiceAnswer>> answer_choices(autograd::Context& cx, const models::Model& model,
                                                      const text::Tokenizer& tokenizer,
                                                      const std::vector<ChoiceSubject>& subjects,
                                                      const ChoiceOptions& options);

// What is right, in numbers.
struct ChoiceScore {
  int64_t questions = 0, right = 0;
  int64_t fewer_shots = 0;    // questions that lost shots
  int64_t shots_removed = 0;  // shots they lost together
  int64_t cut = 0;            // questions that lost their beginning
  double nll = 0;             // sum; with reference_loss the mean of letter and end token
  double accuracy() const {
    return questions == 0 ? 0 : static_cast<double>(right) / static_cast<double>(questions);
  }
  double loss() const { return questions == 0 ? 0 : nll / static_cast<double>(questions); }
  void add(const ChoiceScore& other);
};
ChoiceScore score_choices(const ChoiceSubject& subject, const std::vector<ChoiceAnswer>& answers,
                          const ChoiceOptions& options);

}  // namespace nibble::eval
