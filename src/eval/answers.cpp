#include "eval/answers.h"

#include <algorithm>

#include "base/error.h"
#include "base/process.h"
#include "base/text.h"
#include "data/dataset.h"
#include "eval/part.h"

namespace nibble::eval {
namespace {

std::string content_of(const Json& message, const std::string& where) {
  return json_get<std::string>(message, "content", where);
}

// What stands before the first learned token; of a pair its source.
std::vector<int32_t> prompt_of(const data::EncodedExample& e) {
  const auto end = e.source_tokens > 0
                       ? e.ids.begin() + e.source_tokens
                       : e.ids.begin() + (std::find(e.train.begin(), e.train.end(), 1) - e.train.begin());
  return {e.ids.begin(), end};
}

AnswerCase conversation_case(const data::Example& example, const data::Encoder& encoder,
                             const text::ChatTemplate* chat) {
  data::Example e = example;
  require(e.messages.size() >= 2 && e.messages.back().value("role", "") == "assistant", e.source,
          "\"messages\" should end with the assistant's reference answer");
  AnswerCase c;
  c.reference = content_of(e.messages.back(), e.source);
  c.question = content_of(e.messages[e.messages.size() - 2], e.source);
  if (chat != nullptr) {
    e.messages.erase(e.messages.size() - 1);
    for (const text::TokenSpan& t : text::encode_chat(encoder.tokenizer(), chat->render(e.messages, true)))
      c.prompt.push_back(t.id);
    return c;
  }
  e.train_all = false;
  std::fill(e.train_message.begin(), e.train_message.end(), false);
  e.train_message.back() = true;
  c.prompt = prompt_of(encoder.encode(e));
  return c;
}

AnswerCase text_case(const data::Example& example, const data::Encoder& encoder) {
  AnswerCase c;
  for (const data::Segment& s : example.segments) (s.train ? c.reference : c.question) += s.text;
  const data::EncodedExample encoded = encoder.encode(example);
  const auto first = std::find(encoded.train.begin(), encoded.train.end(), 1);
  require(!c.question.empty() && !c.reference.empty() && first != encoded.train.end(), example.source,
          "has no question and answer to compare; expected a layout with a prompt and a response");
  c.prompt = prompt_of(encoded);
  return c;
}

}  // namespace

std::vector<AnswerCase> read_answers(const AnswerData& data, std::shared_ptr<const text::Tokenizer> tokenizer,
                                     std::shared_ptr<const text::ChatTemplate> chat,
                                     std::optional<int32_t> start_token) {
  if (start_token) chat = nullptr;
  const data::Records records = data::read_records(data.path, data.format);
  const data::DataFormat& format = data::choose_format(records, data.format, data.path);
  data::FormatOptions options{.has_chat_template = chat != nullptr};
  data::apply_format_argument(data.format, data.path, options);
  std::vector<data::Example> examples = format.read(records.records, records.sources, options);
  keep_part(examples, data.every, data.limit);
  require(!examples.empty(), data.path, "holds no record in the layout {}", format.name);
  const data::Encoder encoder(std::move(tokenizer), chat, true, start_token);
  std::vector<AnswerCase> cases;
  for (const data::Example& e : examples)
    cases.push_back(e.messages.is_null() ? text_case(e, encoder) : conversation_case(e, encoder, chat.get()));
  return cases;
}

std::vector<std::string> answer_all(autograd::Context& cx, const models::Model& model,
                                    const text::Tokenizer& tokenizer, const std::vector<AnswerCase>& cases,
                                    const GenerateOptions& options) {
  std::vector<std::vector<int32_t>> prompts;
  for (const AnswerCase& c : cases) prompts.push_back(c.prompt);
  Generator generator(cx, model, tokenizer);
  std::vector<std::string> texts;
  for (const Generated& g : generator.run(prompts, options)) texts.push_back(g.text);
  if (interrupted()) throw Interrupted("answers", "stopped before the last answer");
  return texts;
}

std::vector<std::string> references_of(const std::vector<AnswerCase>& cases) {
  std::vector<std::string> references;
  for (const AnswerCase& c : cases) references.push_back(c.reference);
  return references;
}

}  // namespace nibble::eval
