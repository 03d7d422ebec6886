// A chat template over one small conversation: an Error, or a text whose runs cover it.
#include "text/chat_template.h"

#include <cstdlib>

#include "base/json.h"
#include "tests/fuzz/fuzz.h"

FUZZ_TARGET(chat_template) {
  static const nibble::Json messages = nibble::parse_json(
      R"([{"role":"system","content":"Be brief."},{"role":"user","content":" Hi é\n"},
          {"role":"assistant","content":"ok","tool_calls":[{"function":{"name":"f","arguments":{"a":[1,2.5,null]}}}]}])",
      "fuzz");
  static const nibble::Json variables = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
  static const nibble::Json extra = {{"tools", nibble::Json::array({{{"name", "f"}, {"n", 2}}})}};
  const nibble::text::ChatTemplate t(std::string(bytes), variables);
  for (const bool prompt : {true, false}) {
    const nibble::text::RenderedChat r = t.render(messages, prompt, prompt ? nibble::Json::object() : extra);
    size_t at = 0;
    for (const auto& run : r.runs) {
      if (run.begin != at || run.end <= run.begin) std::abort();
      at = run.end;
    }
    if (at != r.text.size()) std::abort();
  }
}
