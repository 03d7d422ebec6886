// Examples out of JSONL, through a small tokenizer and template: ids and a mask of one length, and a
// printable example.
#include <cstdlib>

#include "data/dataset.h"
#include "tests/fuzz/fuzz.h"
#include "text/loaders.h"

namespace {

const nibble::data::Encoder& encoder(bool with_template) {
  using nibble::text::ChatTemplate;
  static const auto tokenizer = nibble::text::parse_tokenizer_json(
      R"({"added_tokens":[{"id":3,"content":"<e>","special":true}],
          "pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},"decoder":{"type":"ByteLevel"},
          "model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}})",
      {}, "fuzz");
  static const nibble::data::Encoder plain(tokenizer, nullptr);
  static const nibble::data::Encoder chat(
      tokenizer, std::make_shared<const ChatTemplate>(
                     "{% for m in messages %}{{ m.role }}: {{ m.content }}{% for t in m.tool_calls or [] %}"
                     "{{ t | tojson }}{% endfor %}<e>\n{% endfor %}",
                     nibble::Json::object()));
  return with_template ? chat : plain;
}

}  // namespace

FUZZ_TARGET(encode) {
  const std::string path = nibble::fuzz::scratch("encode.jsonl");
  nibble::fuzz::put(path, bytes);
  const auto records = nibble::data::read_records(path);
  const auto& format = nibble::data::choose_format(records, "auto", path);
  for (const bool chat : {true, false})
    for (const auto& example : format.read(records.records, records.sources, {chat, false}))
      nibble::fuzz::attempt([&] {
        const auto encoded = encoder(chat).encode(example);
        if (encoded.ids.size() != encoded.train.size() || (!encoded.train.empty() && encoded.train[0] != 0))
          std::abort();
        (void)nibble::data::show_example(encoded, encoder(chat).tokenizer(), false);
      });
}
