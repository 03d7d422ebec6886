// Chat templates: a model's own Jinja template, rendered with the provenance of every character.
//
// The interpreter covers the subset of Jinja2 that published templates use, with Transformers' settings
// (trim_blocks, lstrip_blocks, tojson without HTML escapes, raise_exception, strftime_now, {% generation %});
// the text equals `apply_chat_template(tokenize=False)` byte for byte. A construct it lacks is an error that
// names it and its line. Templates are untrusted: at most 1,000,000 evaluation steps, 100 levels of nesting,
// 16 MiB of output. Strings carry their provenance through concatenation, slicing, strip, replace, split,
// join and case filters, so that what a loss mask needs is known and never searched for.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json_fwd.h"

namespace nibble::text {

enum class Origin : uint8_t {
  kTemplate,  // the template's own text, and values such as bos_token
  kRole,      // a message's role
  kMessage,   // any other field of messages[message] (content, tool calls, reasoning)
  kOther,     // tools, documents, variables given by the caller
};

// Bytes [begin, end) of the rendered text; runs are in order and cover it. `message` is the index in the list
// given to render(), or -1. `turn` is the message whose turn the run belongs to, -1 outside any: for a run
// from a message that message; for template text inside the loop over messages the message of that iteration.
// `generation` is set inside {% generation %} … {% endgeneration %}.
struct ProvenanceRun {
  size_t begin, end;
  Origin origin;
  int message;
  int turn;
  bool generation;
};

struct RenderedChat {
  std::string text;
  std::vector<ProvenanceRun> runs;
  bool has_generation_blocks = false;
};

class ChatTemplate {
 public:
  // `variables`: an object with bos_token, eos_token, … as the template sees them.
  // Errors: Error{"chat template"} with line and construct.
  ChatTemplate(std::string source, const Json& variables);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;

  // messages: list of {"role", "content", …}; extra: object of further variables (tools, documents,
  // enable_thinking …). Errors: raise_exception's own message, an unknown variable used as an object, the
  // limits above.
  RenderedChat render(const Json& messages, bool add_generation_prompt, const Json& extra) const;
  RenderedChat render(const Json& messages, bool add_generation_prompt) const;

  // What strftime_now() tells from now on (seconds since 1970, UTC) instead of the time of day: a run that
  // must give the same bytes tomorrow sets it.
  void set_clock(int64_t unix_seconds);

  const std::string& source() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nibble::text
