// The rows of registry.cpp, and what their files share.
#pragma once
#include "base/error.h"
#include "data/formats.h"

namespace nibble::data {

extern const DataFormat kMessages, kShareGpt, kAlpaca, kPromptCompletion, kOasst1, kHhRlhf, kText,
    kSelfInstruct, kUnnaturalCore, kUnnaturalFull, kLongForm, kChip2, kFlan, kSuperNi, kGlue;

// A member that must be text. Errors: Error{source} naming the field and what came.
std::string text_field(const Json& record, const char* key, const std::string& source);
// The same, "" when it is missing or null.
std::string optional_text(const Json& record, const char* key, const std::string& source);
bool has_text(const Json& record, const char* key);

// A conversation whose assistant turns are learned, where its turns do not say otherwise ("train": bool or
// "weight"). Errors: Error{source} for no turns, a turn without role or content, or an unknown role.
Example conversation(Json messages, const std::string& source);

// A prompt and what should follow it, which is learned: a user's and an assistant's turn where there is a
// chat template, else two segments. GPT-3's end mark "<|endoftext|>" is taken off the completion: the model's
// own end token follows anyway.
Example prompt_and_completion(const std::string& prompt, std::string completion, const std::string& source,
                              const FormatOptions& options);

}  // namespace nibble::data
