// Any bytes as a template over one small conversation: an Error or a text whose runs cover it.
#include <cstdlib>

#include "base/error.h"
#include "base/json.h"
#include "text/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const nibble::Json messages = nibble::parse_json(
      R"([{"role":"system","content":"Be brief."},{"role":"user","content":" Hi é\n"},
          {"role":"assistant","content":"ok","tool_calls":[{"function":{"name":"f","arguments":{"a":[1,2.5,null]}}}]}])",
      "fuzz");
  static const nibble::Json variables = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
  try {
    const nibble::text::ChatTemplate t(std::string(reinterpret_cast<const char*>(data), size), variables);
    const nibble::text::RenderedChat r = t.render(messages, true);
    size_t at = 0;
    for (const auto& run : r.runs) {
      if (run.begin != at || run.end <= run.begin) std::abort();
      at = run.end;
    }
    if (at != r.text.size()) std::abort();
  } catch (const nibble::Error&) {
  }
  return 0;
}
