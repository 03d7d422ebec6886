// nibble eval match: how many of a file's reference answers the model gives exactly, base and adapter side by
// side.
#include "base/log.h"
#include "base/process.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "cli/generation_options.h"
#include "cli/jsonl.h"
#include "cli/session.h"
#include "eval/exact_match.h"
#include "eval/generate.h"

namespace nibble::cli {
namespace {

struct Case {
  std::string question;  // shown to people: the last thing the user said
  std::string reference;
  std::vector<int32_t> prompt;
};

Case read_case(const JsonLine& record, const Session& session) {
  const Json& v = record.value;
  if (v.is_object() && v.contains("messages")) {
    Json messages = v["messages"];
    require(messages.is_array() && messages.size() >= 2 && messages.back().is_object() &&
                json_get<std::string>(messages.back(), "role", record.where) == "assistant",
            record.where, "\"messages\" should end with the assistant's reference answer");
    Case c;
    c.reference = json_get<std::string>(messages.back(), "content", record.where);
    messages.erase(messages.size() - 1);
    c.question = json_get<std::string>(messages.back(), "content", record.where);
    c.prompt = session.encode_chat(messages);
    return c;
  }
  require(v.is_object() && v.contains("prompt") && v.contains("completion"), record.where,
          "expected an object with \"messages\", or one with \"prompt\" and \"completion\"");
  Case c;
  c.question = json_get<std::string>(v, "prompt", record.where);
  c.reference = json_get<std::string>(v, "completion", record.where);
  c.prompt = session.tokenizer().encode(c.question);
  return c;
}

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
  std::string data;
  bool compare = false, json = false;
  int64_t show = 5;
  Options cli(
      "eval match",
      "Exact match: the share of records whose reference answer the model gives, greedily and to the letter.",
      "nibble eval match --model model.gguf --adapter runs/shop --data heldout.jsonl --compare");
  model.declare(cli);
  cli.add("--data FILE.jsonl", data,
          "records: {\"messages\": […, assistant]} or {\"prompt\", \"completion\"}", true);
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

  const std::vector<JsonLine> records = read_jsonl(data);
  Session session(model);
  std::vector<Case> cases;
  std::vector<std::vector<int32_t>> prompts;
  std::vector<std::string> references;
  for (const JsonLine& record : records) {
    cases.push_back(read_case(record, session));
    prompts.push_back(cases.back().prompt);
    references.push_back(cases.back().reference);
  }

  catch_interrupts();
  const auto answer = [&](const char* who) {
    log_info("answering {} prompts {}", prompts.size(), who);
    eval::Generator generator(session.context(), session.model(), session.tokenizer());
    std::vector<std::string> texts;
    for (const eval::Generated& g : generator.run(prompts, generation.for_session(session, model.seed)))
      texts.push_back(g.text);
    if (interrupted()) throw Interrupted("eval match", "stopped before the last answer");
    return texts;
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
  fmt::print("\nexact match on {}\n", data);
  if (compare) line("before", eval::exact_match(before, references));
  line(compare ? "after" : "answers", score);
  return 0;
}

}  // namespace nibble::cli
