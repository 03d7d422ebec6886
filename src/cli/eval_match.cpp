// nibble eval match: how many of a file's reference answers the model gives exactly, base and adapter side by
// side.
#include "base/log.h"
#include "base/process.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "cli/generation_options.h"
#include "cli/session.h"
#include "eval/answers.h"
#include "eval/exact_match.h"

namespace nibble::cli {
namespace {

// One line, cut to what a table can hold.
std::string shown(std::string text) {
  for (char& c : text)
    if (c == '\n' || c == '\r' || c == '\t') c = ' ';
  text = trim(text);
  constexpr size_t kWidth = 100;
  if (text.size() > kWidth)
    text = text.substr(0, complete_utf8_prefix(std::string_view(text).substr(0, kWidth))) + "…";
  return text;
}

}  // namespace

int run_eval_match(const Arguments& arguments) {
  ModelOptions model;
  GenerationOptions generation;
  generation.greedy = true;
  generation.generate.max_new_tokens = 128;
  eval::AnswerData data;
  bool compare = false, json = false;
  int64_t show = 5;
  Options cli(
      "eval match",
      "Exact match: the share of records whose reference answer the model gives, greedily and to the letter.",
      "nibble eval match --model model.gguf --adapter runs/shop --data heldout.jsonl --compare");
  model.declare(cli);
  cli.add("--data FILE", data.path,
          "questions with reference answers, in any layout that training reads (docs/data.md)", true);
  cli.add("--format NAME", data.format, "the layout, when it is not found by looking");
  cli.add("--limit N", data.limit, "only the first N records; 0 is all");
  cli.add("--max-new-tokens N", generation.generate.max_new_tokens, "longest answer");
  cli.flag("--compare", compare, "also without the adapter, side by side");
  cli.add("--show N", show, "records to print");
  cli.flag("--json", json, "one JSON document");
  cli.footer(
      "JSON: {\"exact_match\": share, \"right\", \"records\", \"base_exact_match\" (with --compare), "
      "\"answers\": […]}.");
  if (!cli.parse(arguments)) return 0;
  model.apply();
  generation.check();
  if (compare && model.adapter.empty()) throw UsageError("eval match", "--compare needs --adapter DIR");

  Session session(model);
  const std::vector<eval::AnswerCase> cases = eval::read_answers(
      data, session.shared_tokenizer(), session.chat_or_none(), session.model().config().decoder_start());
  const std::vector<std::string> references = eval::references_of(cases);

  catch_interrupts();
  const auto answer = [&](const char* who) {
    log_info("answering {} prompts {}", cases.size(), who);
    return eval::answer_all(session.context(), session.model(), session.tokenizer(), cases,
                            generation.for_session(session, model.seed));
  };
  std::vector<std::string> before;
  if (compare) {
    const auto spans = session.context().adapters;
    session.context().adapters.clear();
    before = answer("without the adapter");
    session.context().adapters = spans;
  }
  const std::vector<std::string> after = answer(model.adapter.empty() ? "with the base" : "with the adapter");
  const eval::ExactMatch score = eval::exact_match(after, references);

  if (json) {
    Json answers = Json::array();
    for (size_t i = 0; i < cases.size(); ++i) {
      Json row{{"question", cases[i].question},
               {"reference", cases[i].reference},
               {"answer", after[i]},
               {"right", static_cast<bool>(score.right[i])}};
      if (compare) row["base_answer"] = before[i];
      answers.push_back(row);
    }
    Json document{{"exact_match", score.share()}, {"right", score.count}, {"records", cases.size()}};
    if (compare) document["base_exact_match"] = eval::exact_match(before, references).share();
    document["answers"] = answers;
    print_json(document);
    return 0;
  }
  for (size_t i = 0; i < cases.size() && i < static_cast<size_t>(std::max<int64_t>(show, 0)); ++i) {
    fmt::print("\n  input   {}\n", shown(cases[i].question));
    if (compare) fmt::print("  before  {}\n", shown(before[i]));
    fmt::print("  {}  {}\n", compare ? "after " : "answer", shown(after[i]));
    if (!score.right[i]) fmt::print("  wanted  {}\n", shown(cases[i].reference));
  }
  const auto line = [&](const char* name, const eval::ExactMatch& s) {
    fmt::print("  {:<8}{:3} of {} right, {:5.1f} %\n", name, s.count, cases.size(), 100 * s.share());
  };
  fmt::print("\nexact match on {}\n", data.path);
  if (compare) line("before", eval::exact_match(before, references));
  line(compare ? "after" : "answers", score);
  return 0;
}

}  // namespace nibble::cli
