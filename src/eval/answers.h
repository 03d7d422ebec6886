// Questions with a reference answer each, from any data set in a published layout (data/formats.h), and a
// model's answers to them: what exact match and ROUGE compare.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "eval/generate.h"
#include "text/chat_template.h"

namespace nibble::eval {

struct AnswerCase {
  std::string question;         // for people: the last thing said before the answer
  std::string reference;        // what the data set has
  std::vector<int32_t> prompt;  // as training puts it before the answer
};

struct AnswerData {
  std::string path;
  std::string format = "auto";
  int64_t every = 1;  // one record in so many, from the first: a set that goes task by task is met evenly
  int64_t limit = 0;  // most records; 0: all
};
// The last turn of a conversation, or the learned part of a prompt and its completion, is the reference; what
// comes before it is the prompt, by the template where there is one (`chat` not null), or as an
// encoder–decoder reads it (`start_token`: ModelConfig::decoder_start). Errors: everything of the readers; a
// record without an answer, or with nothing before it.
std::vector<AnswerCase> read_answers(const AnswerData& data, std::shared_ptr<const text::Tokenizer> tokenizer,
                                     std::shared_ptr<const text::ChatTemplate> chat,
                                     std::optional<int32_t> start_token = {});

// One answer a case, in order. The adapters of `cx` are in force. Errors: those of the generator;
// Interrupted.
std::vector<std::string> answer_all(autograd::Context& cx, const models::Model& model,
                                    const text::Tokenizer& tokenizer, const std::vector<AnswerCase>& cases,
                                    const GenerateOptions& options);

// The references alone.
std::vector<std::string> references_of(const std::vector<AnswerCase>& cases);

}  // namespace nibble::eval
