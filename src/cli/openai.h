// The shapes of OpenAI's API: requests read and checked, answers, streamed chunks and errors written.
#pragma once
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace nibble::cli {

// What a client is told: {"error": {"message", "type", "param", "code"}} with an HTTP status.
struct ApiError : std::runtime_error {
  ApiError(int http_status, const std::string& message, std::string wrong_param = "",
           std::string error_code = "")
      : std::runtime_error(message),
        status(http_status),
        param(std::move(wrong_param)),
        code(std::move(error_code)) {}
  int status;
  std::string param, code;
  Json to_json() const;
};

struct CompletionRequest {
  bool chat = false;
  std::string model;
  Json messages;       // chat: contents are text (lists of text parts are joined)
  std::string prompt;  // completion
  std::optional<int64_t> max_tokens, top_k, seed;
  std::optional<double> temperature, top_p, repetition_penalty;
  std::vector<std::string> stop;
  bool stream = false, include_usage = false;
};

// Errors: ApiError 400 naming the parameter: no JSON, a missing or mistyped field, a value out of range, a
// field that would change the answer but is not supported here.
CompletionRequest parse_completion_request(std::string_view body, bool chat);

// One answer: what all of its chunks share.
struct Reply {
  bool chat;
  std::string id, model;
  int64_t created;  // Unix time

  Json whole(const std::string& text, const char* finish, int64_t prompt_tokens, int64_t new_tokens) const;
  // The first chunk of a chat names the role; `finish` is null before the last one.
  Json chunk(std::string_view text, bool first, const char* finish) const;
  Json usage_chunk(int64_t prompt_tokens, int64_t new_tokens) const;
};

// JSON as a server-sent event, invalid UTF-8 replaced.
std::string server_event(const Json& json);
std::string dump_json(const Json& json);

}  // namespace nibble::cli
