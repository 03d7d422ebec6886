#include "cli/choice_report.h"

#include <cstdio>
#include <map>

#include "base/file.h"
#include "base/json.h"
#include "base/process.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/session.h"
#include "eval/choice_data.h"

namespace nibble::cli {
namespace {

Json to_json(const eval::ChoiceScore& s) {
  return {{"accuracy", s.accuracy()},
          {"right", s.right},
          {"questions", s.questions},
          {"fewer_shots", s.fewer_shots},
          {"shots_removed", s.shots_removed},
          {"cut", s.cut},
          {"loss", s.loss()}};
}

std::string letter(int64_t index) { return std::string(1, static_cast<char>('A' + index)); }

struct ChoiceRun {
  std::vector<eval::ChoiceSubject> subjects;
  std::vector<std::vector<eval::ChoiceAnswer>> answers;
  double seconds = 0;
};

ChoiceRun ask_choices(Session& session, std::vector<eval::ChoiceSubject> subjects,
                      eval::ChoiceOptions options) {
  catch_interrupts();
  const double start = now_seconds();
  options.progress = live_progress("questions");
  ChoiceRun run;
  run.answers =
      eval::answer_choices(session.context(), session.model(), session.tokenizer(), subjects, options);
  run.subjects = std::move(subjects);
  run.seconds = now_seconds() - start;
  return run;
}

Json choice_results(const ChoiceRun& run, const eval::ChoiceOptions& options) {
  std::map<std::string, eval::ChoiceScore> categories;
  eval::ChoiceScore all;
  double subject_sum = 0;
  Json subjects = Json::object();
  for (size_t i = 0; i < run.subjects.size(); ++i) {
    const eval::ChoiceSubject& subject = run.subjects[i];
    const eval::ChoiceScore score = eval::score_choices(subject, run.answers[i], options);
    subjects[subject.name] = to_json(score);
    subject_sum += score.accuracy();
    all.add(score);
    if (const auto category = eval::mmlu_category(subject.name))
      categories[std::string(*category)].add(score);
  }
  Json out = to_json(all);
  out["subject_mean"] = subject_sum / static_cast<double>(run.subjects.size());
  out["seconds"] = run.seconds;
  out["categories"] = Json::object();
  for (const auto& [name, score] : categories) out["categories"][name] = to_json(score);
  out["subjects"] = subjects;
  return out;
}

void print_choices(const Json& results) {
  const auto line = [](const std::string& name, const Json& s) {
    const auto fewer = s["fewer_shots"].get<int64_t>(), cut = s["cut"].get<int64_t>();
    return print(fmt::format("  {:<38} {:5.1f} %   {:>6} of {}{}{}\n", name.empty() ? "(no subject)" : name,
                             100 * s["accuracy"].get<double>(), show_count(s["right"].get<int64_t>()),
                             show_count(s["questions"].get<int64_t>()),
                             fewer > 0 ? fmt::format("   {} with fewer shots", fewer) : "",
                             cut > 0 ? fmt::format("   {} cut", cut) : ""));
  };
  if (results["subjects"].size() > 1)
    for (const auto& [name, score] : results["subjects"].items())
      if (!line(name, score)) return;
  print("\n");
  for (const auto& [name, score] : results["categories"].items()) line(name, score);
  line("all questions", results);
  print(fmt::format("  mean over subjects {:.1f} %   loss {:.4f}   {} questions/s\n",
                    100 * results["subject_mean"].get<double>(), results["loss"].get<double>(),
                    fmt::format("{:.1f}", results["questions"].get<double>() /
                                              std::max(1e-9, results["seconds"].get<double>()))));
}

void write_choice_answers(const std::string& path, const ChoiceRun& run) {
  AtomicFile file(path);
  for (size_t s = 0; s < run.subjects.size(); ++s)
    for (size_t i = 0; i < run.answers[s].size(); ++i) {
      const eval::ChoiceAnswer& a = run.answers[s][i];
      const eval::ChoiceQuestion& q = run.subjects[s].questions[i];
      const Json line{{"source", q.source},         {"subject", run.subjects[s].name},
                      {"chosen", letter(a.chosen)}, {"answer", letter(q.answer)},
                      {"logits", a.logits},         {"nll", a.nll},
                      {"shots", a.shots},           {"cut", a.cut}};
      file.write(line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
    }
  file.commit();
}

}  // namespace

void report_choices(Session& session, std::vector<eval::ChoiceSubject> subjects,
                    const eval::ChoiceOptions& options, const std::string& answers, bool json) {
  const ChoiceRun run = ask_choices(session, std::move(subjects), options);
  if (!answers.empty()) write_choice_answers(answers, run);
  const Json results = choice_results(run, options);
  if (json)
    print_json(results);
  else
    print_choices(results);
}

}  // namespace nibble::cli
