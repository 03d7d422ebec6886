// nibble generate: one answer, or one for each record of a file.
#include <algorithm>

#include "base/process.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "cli/generation_options.h"
#include "cli/jsonl.h"
#include "cli/session.h"
#include "eval/generate.h"

namespace nibble::cli {
namespace {

struct GenerateCommand {
  ModelOptions model;
  GenerationOptions generation;
  std::optional<std::string> prompt, prompts, system;
  bool chat = false, json = false;

  bool parse(const Arguments& arguments);
  std::vector<int32_t> encode(const Session& session, const JsonLine& record) const;
  Json with_system(Json messages) const;
};

bool GenerateCommand::parse(const Arguments& arguments) {
  Options options(
      "generate", "Writes text with a model, base or with an adapter.",
      "nibble generate --model model.gguf --chat --prompt \"Name three rivers.\" --max-new-tokens 100");
  model.declare(options);
  options.add("--prompt TEXT", prompt, "what the text begins with");
  options.add("--prompts FILE.jsonl", prompts, "many prompts, one JSON value a line");
  options.flag("--chat", chat, "the prompt is a user's turn, set by the model's chat template");
  options.add("--system TEXT", system, "system message, with --chat or messages");
  generation.declare(options);
  options.add("--batch-size N", generation.generate.batch, "prompts answered at once");
  options.flag("--json", json, "one JSON document instead of the text");
  options.footer(
      "Lines of FILE.jsonl: \"text\", {\"prompt\": \"text\"} or {\"messages\": [{\"role\": \"user\", "
      "\"content\": …}, …]}.\n"
      "JSON: {\"text\", \"tokens\", \"prompt_tokens\", \"finish_reason\": \"stop\" | \"length\", "
      "\"tokens_per_second\"}; with\n"
      "--prompts a list of them in the order of the file.");
  if (!options.parse(arguments)) return false;
  model.apply();
  generation.check();
  if (prompt.has_value() == prompts.has_value())
    throw UsageError("generate", "give either --prompt TEXT or --prompts FILE.jsonl");
  if (system && prompt && !chat) throw UsageError("generate", "--system needs --chat");
  return true;
}

Json GenerateCommand::with_system(Json messages) const {
  const bool has =
      !messages.empty() && messages[0].is_object() && messages[0].value("role", Json()) == "system";
  if (system && !has) messages.insert(messages.begin(), Json{{"role", "system"}, {"content", *system}});
  return messages;
}

std::vector<int32_t> GenerateCommand::encode(const Session& session, const JsonLine& record) const {
  const Json& v = record.value;
  if (v.is_object() && v.contains("messages")) {
    require(v["messages"].is_array() && !v["messages"].empty(), record.where,
            "\"messages\" should be a list of messages");
    return session.encode_chat(with_system(v["messages"]));
  }
  require(v.is_string() || (v.is_object() && v.contains("prompt")), record.where,
          "expected a string, an object with \"prompt\" or one with \"messages\"");
  const std::string text =
      v.is_string() ? v.get<std::string>() : json_get<std::string>(v, "prompt", record.where);
  if (!chat) return session.tokenizer().encode(text);
  return session.encode_chat(with_system(Json::array({{{"role", "user"}, {"content", text}}})));
}

Json to_json(const eval::Generated& g, const eval::Generator& generator) {
  return {{"text", g.text},
          {"tokens", g.ids},
          {"prompt_tokens", g.prompt_tokens},
          {"finish_reason", eval::finish_name(g.finish)},
          {"tokens_per_second", generator.timing().tokens_per_second()}};
}

}  // namespace

int run_generate(const Arguments& arguments) {
  GenerateCommand command;
  if (!command.parse(arguments)) return 0;
  const std::vector<JsonLine> records = command.prompts
                                            ? read_jsonl(*command.prompts)
                                            : std::vector<JsonLine>{{Json(*command.prompt), "--prompt"}};
  Session session(command.model);
  std::vector<std::vector<int32_t>> prompts;
  for (const JsonLine& record : records) prompts.push_back(command.encode(session, record));

  catch_interrupts();
  eval::Generator generator(session.context(), session.model(), session.tokenizer());
  eval::OnText on_text;
  const bool stream = command.prompt && !command.json;
  if (stream) on_text = [](size_t, std::string_view text) { return print(text); };
  const auto results =
      generator.run(prompts, command.generation.for_session(session, command.model.seed), on_text);
  if (stream) print("\n");
  if (interrupted())
    throw Interrupted(
        "generate",
        fmt::format("stopped after {} of {} answers",
                    std::count_if(results.begin(), results.end(),
                                  [](const auto& r) { return r.finish != eval::Finish::kCancelled; }),
                    results.size()));
  if (command.json && command.prompt) {
    print_json(to_json(results[0], generator));
  } else if (command.json) {
    Json list = Json::array();
    for (const eval::Generated& result : results) list.push_back(to_json(result, generator));
    print_json(list);
  } else if (!stream) {
    for (size_t i = 0; i < results.size(); ++i)
      if (!print((i > 0 ? "\n" : "") + results[i].text + "\n")) break;
  }
  return 0;
}

}  // namespace nibble::cli
