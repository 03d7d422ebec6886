// nibble eval judge: a model behind an OpenAI-compatible address compares the answers of several systems.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <thread>

#include "base/error.h"
#include "base/process.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "cli/http_client.h"
#include "cli/jsonl.h"
#include "eval/judge.h"

namespace nibble::cli {
namespace {

std::string id_of(const Json& record, const std::string& where) {
  require(record.is_object() && record.contains("question_id"), where, "has no \"question_id\"");
  const Json& id = record["question_id"];
  require(id.is_string() || id.is_number_integer(), where,
          "\"question_id\" should be text or a number, got {}", id.type_name());
  return id.is_string() ? id.get<std::string>() : id.dump();
}

std::string first_text(const Json& record, std::initializer_list<const char*> keys, const std::string& where,
                       const char* what) {
  for (const char* key : keys)
    if (record.contains(key) && record[key].is_string()) return record[key].get<std::string>();
  fail(where, "has no {}", what);
}

std::vector<eval::JudgeQuestion> read_questions(const std::string& path) {
  std::vector<eval::JudgeQuestion> out;
  std::map<std::string, size_t> seen;
  for (const JsonLine& line : read_jsonl(path)) {
    const std::string id = id_of(line.value, line.where);
    require(seen.try_emplace(id, out.size()).second, line.where, "question_id {} is there twice", id);
    std::string text;
    if (line.value.contains("turns") && line.value["turns"].is_array() && !line.value["turns"].empty() &&
        line.value["turns"][0].is_string())
      text = line.value["turns"][0].get<std::string>();
    else
      text = first_text(line.value, {"text", "question", "prompt"}, line.where, "\"text\"");
    out.push_back({id, text});
  }
  return out;
}

eval::JudgedSystem read_answers(const std::string& spec, const std::vector<eval::JudgeQuestion>& questions) {
  const size_t equals = spec.find('=');
  if (equals == std::string::npos || equals == 0)
    throw UsageError("--answers", fmt::format("\"{}\": expected NAME=FILE.jsonl", spec));
  eval::JudgedSystem system{spec.substr(0, equals), {}};
  const std::string path = spec.substr(equals + 1);
  std::map<std::string, std::string> answers;
  for (const JsonLine& line : read_jsonl(path)) {
    const std::string id = id_of(line.value, line.where);
    answers[id] = first_text(line.value, {"generation", "answer", "text"}, line.where,
                             "\"generation\", \"answer\" or \"text\"");
  }
  for (const eval::JudgeQuestion& q : questions) {
    const auto it = answers.find(q.id);
    require(it != answers.end(), path, "has no answer to question {}", q.id);
    system.answers.push_back(it->second);
  }
  return system;
}

eval::JudgeReply ask(HttpClient& client, const std::string& model, const Json& messages, double temperature,
                     int64_t max_tokens) {
  const HttpAnswer answer = client.post(
      "/chat/completions",
      {{"model", model}, {"messages", messages}, {"temperature", temperature}, {"max_tokens", max_tokens}});
  if (answer.status == 0) return {std::nullopt, fmt::format("no answer: {}", answer.body), false};
  if (answer.status != 200) {
    const bool temporary =
        answer.status == 408 || answer.status == 409 || answer.status == 429 || answer.status >= 500;
    return {std::nullopt, fmt::format("HTTP {}: {}", answer.status, answer.body.substr(0, 300)), !temporary};
  }
  try {
    const Json body = parse_json(answer.body, "answer");
    const Json& content = body.at("choices").at(0).at("message").at("content");
    if (content.is_string()) return {content.get<std::string>(), "", false};
  } catch (const std::exception&) {
  }
  return {std::nullopt, fmt::format("not a chat completion: {}", answer.body.substr(0, 300)), false};
}

// In short steps, so that Ctrl-C is heard.
void sleep_for(double seconds) {
  for (const double end = now_seconds() + seconds; now_seconds() < end && !interrupted();)
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
}

}  // namespace

int run_eval_judge(const Arguments& arguments) {
  std::string questions_file, url = "http://127.0.0.1:8080/v1", model, log, key_variable = "OPENAI_API_KEY";
  std::vector<std::string> answers;
  double temperature = 0.2, timeout = 300, wait = 1;
  int64_t max_tokens = 1024;
  eval::JudgeOptions options;
  bool json = false;
  Options cli("eval judge",
              "A judge behind an OpenAI-compatible address (nibble serve is one) says for every question and "
              "every two systems "
              "whose answer is better, in both orders.",
              "nibble eval judge --questions vicuna.jsonl --answers base=base.jsonl --answers "
              "tuned=tuned.jsonl --url "
              "http://127.0.0.1:8080/v1 --judge NAME --log judgements.jsonl");
  cli.add("--questions FILE.jsonl", questions_file,
          "records with \"question_id\" and \"text\" (or \"turns\")", true);
  cli.add("--answers NAME=FILE", answers,
          "a system's answers: \"question_id\" and \"generation\" (or \"text\"); give it for each system");
  cli.add("--url URL", url, "where the judge is");
  cli.add("--judge NAME", model, "the judge's name as \"model\"", true);
  cli.add("--log FILE.jsonl", log,
          "a line per judgement, for nibble eval elo; a run that was stopped goes on from it", true);
  cli.add("--key-variable NAME", key_variable, "environment variable with the key, if the address wants one");
  cli.add("--temperature T", temperature, "of the judge");
  cli.add("--max-new-tokens N", max_tokens, "most tokens of a judgement");
  cli.add("--timeout SECONDS", timeout, "for one answer");
  cli.add("--retries N", options.retries, "further attempts when no answer or no verdict comes");
  cli.add("--wait SECONDS", wait, "before the first retry after a failure; doubled for each further one");
  cli.flag("--json", json, "one JSON document");
  cli.footer(
      "JSON: {\"first\", \"second\", \"ties\": verdicts by place shown, \"nonsense\": answered without a "
      "verdict, \"unanswered\": "
      "asked again by the next run, \"from_log\"}.");
  if (!cli.parse(arguments)) return 0;
  if (answers.size() < 2)
    throw UsageError("--answers", "at least two systems are needed, each as NAME=FILE.jsonl");
  if (options.retries < 0)
    throw UsageError("--retries", fmt::format("expected a number from 0 up, got {}", options.retries));
  if (!(timeout >= 1))
    throw UsageError("--timeout", fmt::format("expected at least 1 second, got {}", timeout));
  if (!(wait >= 0)) throw UsageError("--wait", fmt::format("expected 0 seconds or more, got {}", wait));

  const std::vector<eval::JudgeQuestion> questions = read_questions(questions_file);
  std::vector<eval::JudgedSystem> systems;
  for (const std::string& spec : answers) {
    systems.push_back(read_answers(spec, questions));
    for (size_t i = 0; i + 1 < systems.size(); ++i)
      if (systems[i].name == systems.back().name)
        throw UsageError("--answers", fmt::format("\"{}\" is there twice", systems.back().name));
  }
  const char* key = std::getenv(key_variable.c_str());
  HttpClient client(url, key == nullptr ? "" : key, timeout);

  catch_interrupts();
  options.wait_seconds = wait;
  options.sleep = sleep_for;
  options.progress = live_progress("judgements");
  const eval::JudgeResult r = eval::judge(
      questions, systems, model,
      [&](const Json& messages) { return ask(client, model, messages, temperature, max_tokens); }, log,
      options);
  if (json)
    print_json({{"first", r.first},
                {"second", r.second},
                {"ties", r.ties},
                {"nonsense", r.nonsense},
                {"unanswered", r.unanswered},
                {"from_log", r.from_log}});
  else
    print(fmt::format(
        "{} judgements: the first shown won {}, the second {}, ties {}; {} without a verdict, {} unanswered\n"
        "ratings: nibble eval elo --games {}\n",
        r.first + r.second + r.ties + r.nonsense + r.unanswered, r.first, r.second, r.ties, r.nonsense,
        r.unanswered, log));
  return 0;
}

}  // namespace nibble::cli
