// What a model writes, against reference answers: exact match and ROUGE, in percent.
#include "base/error.h"
#include "eval/answers.h"
#include "eval/exact_match.h"
#include "eval/rouge.h"
#include "study/measures.h"

namespace nibble::study {
namespace {

void check_answers(const Json& options, std::vector<std::string> more, const std::string& where) {
  more.insert(more.end(), {"data", "format", "every", "limit", "max_new_tokens", "context"});
  known_options(options, more, where);
  needs_option(options, "data", where);
  json_get<std::string>(options, "data", where);
  json_get<std::string>(options, "format", "", where);
  whole_option(options, "every", 1, 1, INT64_MAX, where);
  whole_option(options, "limit", 0, 0, INT64_MAX, where);
  whole_option(options, "context", 0, 0, INT64_MAX, where);
  whole_option(options, "max_new_tokens", 1, 1, INT64_MAX, where);
}

void check_match(const Json& options, const std::string& where) { check_answers(options, {}, where); }

void check_rouge(const Json& options, const std::string& where) {
  check_answers(options, {"score", "stem"}, where);
  option_among(options, "score", {"l", "1", "2"}, where);
  json_get<bool>(options, "stem", true, where);
}

struct Answered {
  std::vector<std::string> answers, references;
};

// Greedily, up to 128 tokens unless told otherwise.
Answered answer(Subject& subject, const Json& options, const std::string& where) {
  const std::vector<eval::AnswerCase> cases = eval::read_answers(
      {.path = json_get<std::string>(options, "data", where),
       .format = json_get<std::string>(options, "format", "auto", where),
       .every = json_get<int64_t>(options, "every", 1, where),
       .limit = json_get<int64_t>(options, "limit", 0, where)},
      subject.shared_tokenizer(), subject.chat(), subject.model().config().decoder_start());
  eval::GenerateOptions how;
  how.sampling.temperature = 0;
  how.max_new_tokens = json_get<int64_t>(options, "max_new_tokens", 128, where);
  how.context = json_get<int64_t>(options, "context", 0, where);
  how.stop_ids = subject.stop_ids();
  return {eval::answer_all(subject.context(), subject.model(), subject.tokenizer(), cases, how),
          eval::references_of(cases)};
}

double measure_match(Subject& subject, const Json& options) {
  const Answered a = answer(subject, options, "measure match");
  return 100 * eval::exact_match(a.answers, a.references).share();
}

double measure_rouge(Subject& subject, const Json& options) {
  const std::string where = "measure rouge", score = option_among(options, "score", {"l", "1", "2"}, where);
  const bool stem = json_get<bool>(options, "stem", true, where);
  const Answered a = answer(subject, options, where);
  double sum = 0;
  for (size_t i = 0; i < a.answers.size(); ++i) {
    const eval::Rouge r = eval::rouge(a.answers[i], a.references[i], stem);
    sum += (score == "l" ? r.l : score == "1" ? r.one : r.two).f;
  }
  return 100 * sum / static_cast<double>(a.answers.size());
}

std::vector<std::string> data_file(const Json& options) { return {options["data"].get<std::string>()}; }

}  // namespace

const MeasureKind kMatch = {"match", false, check_match, data_file, measure_match};
const MeasureKind kRouge = {"rouge", false, check_rouge, data_file, measure_rouge};

}  // namespace nibble::study
