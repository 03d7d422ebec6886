// What stands beside a tokenizer, each file with these bytes, over a small sound tokenizer.json.
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/use_tokenizer.h"

FUZZ_TARGET(tokenizer_config) {
  static const std::string directory = [] {
    const std::string made = nibble::fuzz::scratch_directory("tokenizer_config");
    nibble::fuzz::put(made + "/tokenizer.json",
                      R"({"added_tokens":[{"id":3,"content":"<s>","special":true}],
                          "model":{"type":"BPE","byte_fallback":false,"vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}})");
    return made;
  }();
  for (const char* name :
       {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "generation_config.json"}) {
    nibble::fuzz::put(directory + "/" + name, bytes);
    nibble::fuzz::attempt([&] { nibble::fuzz::use(*nibble::text::load_tokenizer(directory), "a<s>ab"); });
    nibble::fuzz::put(directory + "/" + name, "{}");
  }
}
