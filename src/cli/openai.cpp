#include "cli/openai.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"

namespace nibble::cli {
namespace {

[[noreturn]] void refuse(const std::string& param, const std::string& message) {
  throw ApiError(400, message, param);
}

std::optional<int64_t> integer(const Json& body, const char* key, int64_t low) {
  if (!body.contains(key) || body[key].is_null()) return std::nullopt;
  if (!body[key].is_number_integer() || body[key].get<double>() > 9e15 ||
      body[key].get<double>() < static_cast<double>(low))
    refuse(key,
           fmt::format("'{}' should be a whole number from {} up, got {}", key, low, dump_json(body[key])));
  return body[key].get<int64_t>();
}

std::optional<double> number(const Json& body, const char* key, double low, double high) {
  if (!body.contains(key) || body[key].is_null()) return std::nullopt;
  const double value = body[key].is_number() ? body[key].get<double>() : NAN;
  if (!(value >= low && value <= high))
    refuse(key, fmt::format("'{}' should be a number from {} to {}, got {}", key, low, high,
                            dump_json(body[key])));
  return value;
}

bool boolean(const Json& body, const char* key) {
  if (!body.contains(key) || body[key].is_null()) return false;
  if (!body[key].is_boolean())
    refuse(key, fmt::format("'{}' should be true or false, got {}", key, dump_json(body[key])));
  return body[key].get<bool>();
}

std::string content_text(const Json& content, const std::string& param) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) refuse(param, fmt::format("'{}' should be text or a list of text parts", param));
  std::string text;
  for (const Json& part : content) {
    if (!part.is_object() || part.value("type", Json()) != "text" || !part.contains("text") ||
        !part["text"].is_string())
      refuse(param, fmt::format("'{}' holds a part that is not text; only text is supported", param));
    text += part["text"].get<std::string>();
  }
  return text;
}

Json read_messages(const Json& body) {
  if (!body.contains("messages") || !body["messages"].is_array() || body["messages"].empty())
    refuse("messages", "'messages' should be a list of at least one message");
  Json out = Json::array();
  for (size_t i = 0; i < body["messages"].size(); ++i) {
    const Json& m = body["messages"][i];
    const std::string param = fmt::format("messages[{}]", i);
    if (!m.is_object() || !m.contains("role") || !m["role"].is_string())
      refuse(param, fmt::format("'{}' should be an object with a role", param));
    std::string role = m["role"].get<std::string>();
    if (role == "developer") role = "system";
    if (role != "system" && role != "user" && role != "assistant")
      refuse(param + ".role",
             fmt::format("the role '{}' is not supported; expected system, user or assistant", role));
    if (!m.contains("content")) refuse(param + ".content", fmt::format("'{}' has no content", param));
    out.push_back({{"role", role}, {"content", content_text(m["content"], param + ".content")}});
  }
  return out;
}

std::string read_prompt(const Json& body) {
  if (!body.contains("prompt")) refuse("prompt", "'prompt' is missing");
  const Json& prompt = body["prompt"];
  if (prompt.is_string()) return prompt.get<std::string>();
  if (prompt.is_array() && prompt.size() == 1 && prompt[0].is_string()) return prompt[0].get<std::string>();
  refuse("prompt",
         "'prompt' should be one text; several prompts or token ids in one request are not supported");
}

std::vector<std::string> read_stop(const Json& body) {
  std::vector<std::string> stop;
  if (!body.contains("stop") || body["stop"].is_null()) return stop;
  const Json list = body["stop"].is_array() ? body["stop"] : Json::array({body["stop"]});
  for (const Json& one : list) {
    if (!one.is_string() || one.get_ref<const std::string&>().empty() || list.size() > 16)
      refuse("stop", "'stop' should be a text or a list of up to 16 texts, none of them empty");
    stop.push_back(one.get<std::string>());
  }
  return stop;
}

// What does not change the answer may come along; what would, and is not done here, is refused.
void check_other_fields(const Json& body) {
  constexpr std::array<std::string_view, 24> kKnown = {"model",
                                                       "messages",
                                                       "prompt",
                                                       "max_tokens",
                                                       "max_completion_tokens",
                                                       "temperature",
                                                       "top_p",
                                                       "top_k",
                                                       "seed",
                                                       "stop",
                                                       "stream",
                                                       "stream_options",
                                                       "user",
                                                       "metadata",
                                                       "store",
                                                       "service_tier",
                                                       "safety_identifier",
                                                       "prompt_cache_key",
                                                       "repetition_penalty",
                                                       "parallel_tool_calls",
                                                       "reasoning_effort",
                                                       "verbosity",
                                                       "prediction",
                                                       "prompt_cache_retention"};
  for (const auto& [key, value] : body.items()) {
    if (value.is_null() || std::find(kKnown.begin(), kKnown.end(), key) != kKnown.end()) continue;
    if ((key == "n" || key == "best_of") && value == 1) continue;
    if ((key == "frequency_penalty" || key == "presence_penalty") && value == 0) continue;
    if ((key == "echo" || key == "logprobs") && (value == false)) continue;
    if ((key == "tools" || key == "functions" || key == "logit_bias") && value.empty()) continue;
    if (key == "response_format" && value.is_object() && value.value("type", Json()) == "text") continue;
    refuse(key, fmt::format("'{}' is not supported by this server with the value {}", key, dump_json(value)));
  }
}

Json usage(int64_t prompt_tokens, int64_t new_tokens) {
  return {{"prompt_tokens", prompt_tokens},
          {"completion_tokens", new_tokens},
          {"total_tokens", prompt_tokens + new_tokens}};
}

}  // namespace

std::string dump_json(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }
std::string server_event(const Json& json) { return "data: " + dump_json(json) + "\n\n"; }

Json ApiError::to_json() const {
  const char* type = status == 429   ? "rate_limit_error"
                     : status >= 500 ? "server_error"
                                     : "invalid_request_error";
  return {{"error",
           {{"message", what()},
            {"type", type},
            {"param", param.empty() ? Json(nullptr) : Json(param)},
            {"code", code.empty() ? Json(nullptr) : Json(code)}}}};
}

CompletionRequest parse_completion_request(std::string_view text, bool chat) {
  Json body;
  try {
    body = parse_json(text, "request");
  } catch (const Error& e) {
    refuse("", fmt::format("the body is not JSON: {}", e.what()));
  }
  if (!body.is_object()) refuse("", "the body should be a JSON object");
  CompletionRequest r;
  r.chat = chat;
  if (!body.contains("model") || !body["model"].is_string()) refuse("model", "you must provide a 'model'");
  r.model = body["model"].get<std::string>();
  if (chat)
    r.messages = read_messages(body);
  else
    r.prompt = read_prompt(body);
  r.max_tokens = integer(body, "max_completion_tokens", 1);
  if (!r.max_tokens) r.max_tokens = integer(body, "max_tokens", 1);
  r.top_k = integer(body, "top_k", 0);
  r.seed = integer(body, "seed", 0);
  r.temperature = number(body, "temperature", 0, 2);
  r.top_p = number(body, "top_p", 1e-9, 1);
  r.repetition_penalty = number(body, "repetition_penalty", 1e-9, 100);
  r.stop = read_stop(body);
  r.stream = boolean(body, "stream");
  if (body.contains("stream_options") && body["stream_options"].is_object())
    r.include_usage = boolean(body["stream_options"], "include_usage");
  check_other_fields(body);
  return r;
}

Json Reply::whole(const std::string& text, const char* finish, int64_t prompt_tokens,
                  int64_t new_tokens) const {
  Json choice{{"index", 0}, {"finish_reason", finish}, {"logprobs", nullptr}};
  if (chat)
    choice["message"] = {{"role", "assistant"}, {"content", text}};
  else
    choice["text"] = text;
  return {{"id", id},
          {"object", chat ? "chat.completion" : "text_completion"},
          {"created", created},
          {"model", model},
          {"choices", Json::array({choice})},
          {"usage", usage(prompt_tokens, new_tokens)}};
}

Json Reply::chunk(std::string_view text, bool first, const char* finish) const {
  Json choice{{"index", 0},
              {"finish_reason", finish == nullptr ? Json(nullptr) : Json(finish)},
              {"logprobs", nullptr}};
  if (chat) {
    choice["delta"] = Json::object();
    if (first) choice["delta"]["role"] = "assistant";
    if (finish == nullptr) choice["delta"]["content"] = text;
  } else {
    choice["text"] = text;
  }
  return {{"id", id},
          {"object", chat ? "chat.completion.chunk" : "text_completion"},
          {"created", created},
          {"model", model},
          {"choices", Json::array({choice})}};
}

Json Reply::usage_chunk(int64_t prompt_tokens, int64_t new_tokens) const {
  Json json = chunk("", false, nullptr);
  json["choices"] = Json::array();
  json["usage"] = usage(prompt_tokens, new_tokens);
  return json;
}

}  // namespace nibble::cli
