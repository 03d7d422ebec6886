// nibble generate: one answer, or one for each record of a file.
#include <fmt/core.h>

#include <algorithm>

#include "base/file.h"
#include "base/process.h"
#include "base/text.h"
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
  std::optional<std::string> prompt, prompts, system, out;
  bool chat = false, json = false;

  bool parse(const Arguments& arguments);
  std::vector<int32_t> encode(const Session& session, const JsonLine& record) const;
  std::optional<std::vector<int32_t>> encode_question(const Session& session, const JsonLine& record) const;
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
  options.add(
      "--out FILE.jsonl", out,
      "with --prompts: write each record with its \"generation\" there, for nibble eval judge and score");
  options.flag("--json", json, "one JSON document instead of the text");
  options.footer(
      "Lines of FILE.jsonl: \"text\", {\"prompt\": \"text\"} or {\"messages\": [{\"role\": \"user\", "
      "\"content\": …}, …]};\n"
      "or a published list of questions: {\"question_id\", \"text\"} (Vicuna-80, asked with the reference's "
      "prompt unless\n"
      "--chat), {\"question_id\", \"turns\"} (MT-Bench, the first turn), OpenAssistant conversations.\n"
      "JSON: {\"text\", \"tokens\", \"prompt_tokens\", \"finish_reason\": \"stop\" | \"length\", "
      "\"tokens_per_second\"}; with\n"
      "--prompts a list of them in the order of the file.\n"
      "A GGUF file's own blocks (Q4_0, Q4_1, Q4_K, Q8_0) are multiplied by inputs rounded to 8 bits, as in "
      "llama.cpp;\n"
      "--dtype f32 rounds none.");
  if (!options.parse(arguments)) return false;
  model.apply();
  generation.check();
  if (prompt.has_value() == prompts.has_value())
    throw UsageError("generate", "give either --prompt TEXT or --prompts FILE.jsonl");
  if (out && !prompts) throw UsageError("generate", "--out needs --prompts FILE.jsonl");
  if (system && prompt && !chat) throw UsageError("generate", "--system needs --chat");
  return true;
}

Json GenerateCommand::with_system(Json messages) const {
  const bool has =
      !messages.empty() && messages[0].is_object() && messages[0].value("role", Json()) == "system";
  if (system && !has) messages.insert(messages.begin(), Json{{"role", "system"}, {"content", *system}});
  return messages;
}

// How the reference asks its models the Vicuna questions.
constexpr const char* kVicunaPrompt =
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and "
    "polite answers to the user's questions. ### Human: {} ### Assistant:";

// "### Human: … ### Assistant: … ### Human: … ### Assistant:" as messages.
Json conversation_of(std::string_view text, const std::string& where) {
  constexpr std::string_view kHuman = "### Human:", kAssistant = "### Assistant:";
  Json messages = Json::array();
  while (!text.empty()) {
    const bool human = text.starts_with(kHuman);
    require(human || text.starts_with(kAssistant), where,
            "expected turns that begin with ### Human: and ### Assistant:");
    text.remove_prefix((human ? kHuman : kAssistant).size());
    const size_t end = std::min({text.size(), text.find(kHuman), text.find(kAssistant)});
    const std::string content(trim(text.substr(0, end)));
    text.remove_prefix(end);
    if (!text.empty() || !content.empty())
      messages.push_back({{"role", human ? "user" : "assistant"}, {"content", content}});
  }
  return messages;
}

// Lists of questions as they are published: {"question_id", "text"} (Vicuna-80), {"turns"} (MT-Bench: the
// first turn), and the reference's conversations, where "text" is "### Human: …### Assistant:" and "prompt"
// the whole prompt.
std::optional<std::vector<int32_t>> GenerateCommand::encode_question(const Session& session,
                                                                     const JsonLine& record) const {
  const Json& v = record.value;
  if (!v.is_object() || !v.contains("question_id")) return std::nullopt;
  std::string question;
  if (v.contains("turns")) {
    const auto turns = json_get<std::vector<std::string>>(v, "turns", record.where);
    require(!turns.empty(), record.where, "\"turns\" is empty");
    question = turns[0];
  } else {
    question = json_get<std::string>(v, "text", record.where);
  }
  const bool turns = std::string_view(question).starts_with("### Human:");
  if (chat)
    return session.encode_chat(with_system(turns ? conversation_of(question, record.where)
                                                 : Json::array({{{"role", "user"}, {"content", question}}})));
  if (v.contains("prompt"))
    return session.tokenizer().encode(json_get<std::string>(v, "prompt", record.where));
  return session.tokenizer().encode(turns ? question : fmt::format(fmt::runtime(kVicunaPrompt), question));
}

std::vector<int32_t> GenerateCommand::encode(const Session& session, const JsonLine& record) const {
  const Json& v = record.value;
  if (v.is_object() && v.contains("messages")) {
    require(v["messages"].is_array() && !v["messages"].empty(), record.where,
            "\"messages\" should be a list of messages");
    return session.encode_chat(with_system(v["messages"]));
  }
  if (const auto question = encode_question(session, record)) return *question;
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
  if (command.out) {
    AtomicFile file(*command.out);
    for (size_t i = 0; i < results.size(); ++i) {
      Json line = records[i].value.is_object() ? records[i].value : Json{{"prompt", records[i].value}};
      line["generation"] = results[i].text;
      line["finish_reason"] = eval::finish_name(results[i].finish);
      file.write(line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
    }
    file.commit();
  }
  if (command.json && command.prompt) {
    print_json(to_json(results[0], generator));
  } else if (command.json) {
    Json list = Json::array();
    for (const eval::Generated& result : results) list.push_back(to_json(result, generator));
    print_json(list);
  } else if (!stream && !command.out) {
    for (size_t i = 0; i < results.size(); ++i)
      if (!print((i > 0 ? "\n" : "") + results[i].text + "\n")) break;
  }
  return 0;
}

}  // namespace nibble::cli
