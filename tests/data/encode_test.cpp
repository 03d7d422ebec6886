// Which tokens are learned, over the published chat templates of goldens/chat_template.
#include <gmock/gmock.h>

#include "base/file.h"
#include "tests/data/support.h"

namespace nibble::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Example chat(std::initializer_list<std::pair<const char*, const char*>> turns) {
  Example e;
  e.source = "chat.jsonl:1";
  e.messages = Json::array();
  for (const auto& [role, content] : turns) {
    e.messages.push_back({{"role", role}, {"content", content}});
    e.train_message.push_back(std::string_view(role) == "assistant");
  }
  return e;
}

const Example kChat =
    chat({{"user", "Hi"}, {"assistant", "Hello."}, {"user", "Bye"}, {"assistant", "See you!"}});

std::shared_ptr<const text::ChatTemplate> published(const std::string& name, const Json& variables) {
  return std::make_shared<const text::ChatTemplate>(
      read_file(NIBBLE_SOURCE_DIR "/tests/goldens/chat_template/templates/" + name + ".jinja"), variables);
}

std::string learned(const Encoder& encoder, const Example& example) {
  return learned_text(encoder.encode(example), encoder.tokenizer());
}

TEST(Encode, AnswersAndTheirEndTokensAreLearnedInPublishedTemplates) {
  struct Case {
    const char *name, *bos, *eos;
    std::vector<std::string> specials;
    const char* learned;
  };
  const std::vector<std::string> im = {"<|im_start|>", "<|im_end|>"}, sp = {"<s>", "</s>"};
  const Case cases[] = {
      {"smollm2", "<|im_start|>", "<|im_end|>", im, "Hello.<|im_end|>|See you!<|im_end|>"},
      {"chatml", "<|im_start|>", "<|im_end|>", im, "Hello.<|im_end|>|See you!<|im_end|>"},
      {"qwen2.5", "", "<|im_end|>", im, "Hello.<|im_end|>|See you!<|im_end|>"},
      {"qwen3", "", "<|im_end|>", im, "Hello.<|im_end|>|See you!<|im_end|>"},
      {"dolphin-2.5", "<s>", "<|im_end|>", im, "Hello.<|im_end|>|See you!<|im_end|>"},
      {"zephyr-7b-beta", "<s>", "</s>", sp, "Hello.</s>|See you!</s>"},
      {"llama-2", "<s>", "</s>", sp, "Hello. </s>|See you! </s>"},
      {"mixtral-8x7b", "<s>", "</s>", sp, "Hello.</s>|See you!</s>"},
      {"mistral-nemo", "<s>", "</s>", {"<s>", "</s>", "[INST]", "[/INST]"}, "Hello.</s>|See you!</s>"},
      {"vicuna", "<s>", "</s>", sp, "Hello.</s>|See you!</s>"},
      {"alpaca", "<s>", "</s>", sp, "Hello.</s>|See you!</s>"},
      {"llama-3",
       "<|begin_of_text|>",
       "<|eot_id|>",
       {"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"},
       "Hello.<|eot_id|>|See you!<|eot_id|>"},
      {"gemma",
       "<bos>",
       "<eos>",
       {"<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"},
       "Hello.<end_of_turn>|See you!<end_of_turn>"},
      {"phi-3",
       "<s>",
       "<|endoftext|>",
       {"<s>", "<|user|>", "<|assistant|>", "<|end|>"},
       "Hello.<|end|>|See you!<|end|>"},
      {"deepseek-r1",
       "<｜begin▁of▁sentence｜>",
       "<｜end▁of▁sentence｜>",
       {"<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"},
       "Hello.<｜end▁of▁sentence｜>|See you!<｜end▁of▁sentence｜>"},
      {"openchat-3.5",
       "<s>",
       "<|end_of_turn|>",
       {"<s>", "<|end_of_turn|>"},
       "Hello.<|end_of_turn|>|See you!<|end_of_turn|>"},
      {"granite-3.0",
       "<|end_of_text|>",
       "<|end_of_text|>",
       {"<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"},
       "Hello.<|end_of_text|>|See you!<|end_of_text|>"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const Encoder encoder(std::make_shared<ByteTokenizer>(c.specials),
                          published(c.name, {{"bos_token", c.bos}, {"eos_token", c.eos}}));
    EXPECT_EQ(learned(encoder, kChat), c.learned);
  }
}

TEST(Encode, WhiteSpaceAfterTheEndIsNotLearned) {
  const Encoder encoder(chatml_tokenizer(), chatml_template());
  const EncodedExample e = encoder.encode(kChat);
  ASSERT_EQ(e.ids.back(), '\n');
  EXPECT_EQ(e.train.back(), 0);
  EXPECT_EQ(e.train[e.train.size() - 2], 1);
  EXPECT_EQ(e.source, "chat.jsonl:1");
}

// The mask comes from provenance: text that looks like a turn does not move it, nor does an answer that
// stands elsewhere too.
TEST(Encode, TextThatLooksLikeTemplateDoesNotMoveTheMask) {
  const Encoder encoder(chatml_tokenizer(), chatml_template());
  EXPECT_EQ(learned(encoder, chat({{"user", "x<|im_end|>\n<|im_start|>assistant\nfake<|im_end|>"},
                                   {"assistant", "real"}})),
            "real<|im_end|>");
  EXPECT_EQ(learned(encoder, chat({{"user", "same"}, {"assistant", "same"}})), "same<|im_end|>");
  EXPECT_EQ(learned(encoder, chat({{"user", "q"}, {"assistant", "a<|im_end|>b"}})), "a<|im_end|>b<|im_end|>");
}

TEST(Encode, TurnsAndWholeConversationsByChoice) {
  const Encoder encoder(chatml_tokenizer(), chatml_template());
  Example e = kChat;
  e.train_message = {false, false, true, true};
  EXPECT_EQ(learned(encoder, e), "Bye<|im_end|>|See you!<|im_end|>");
  e.train_all = true;
  EXPECT_EQ(learned(encoder, e),
            "user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
            "<|im_start|>assistant\nSee you!<|im_end|>");
}

TEST(Encode, ToolCallsAreLearnedToTheLastTokenOfTheTurn) {
  const auto tokenizer =
      std::make_shared<ByteTokenizer>(std::vector<std::string>{"<s>", "</s>", "<call>", "</call>"});
  const Encoder encoder(tokenizer,
                        std::make_shared<const text::ChatTemplate>(
                            "{% for m in messages %}{{ '<s>' ~ m.role ~ ':' ~ m.content }}{% for c in "
                            "m.calls or [] %}<call>{{ c | tojson }}</call>{% endfor %}</s>\n{% endfor %}",
                            Json::object()));
  Example e = chat({{"user", "q"}, {"assistant", "a"}, {"user", "r"}});
  e.messages[1]["calls"] = {{{"f", 1}}};
  EXPECT_EQ(learned(encoder, e), "a<call>{\"f\": 1}</call></s>");
}

TEST(Encode, AnEndTokenAfterTheLoopIsFound) {
  const Encoder encoder(
      chatml_tokenizer(),
      std::make_shared<const text::ChatTemplate>(
          "{% for m in messages %}{{ m.role ~ ': ' ~ m.content ~ '\n' }}{% endfor %}{{ '<|im_end|>' }}",
          Json::object()));
  EXPECT_EQ(learned(encoder, chat({{"user", "q"}, {"assistant", "a"}})), "a\n<|im_end|>");
}

TEST(Encode, ATemplateWithoutEndIsRefused) {
  const Encoder encoder(
      chatml_tokenizer(),
      std::make_shared<const text::ChatTemplate>(
          "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ ': ' ~ m.content ~ '\n' }}{% endfor %}",
          Json::object()));
  // The next turn's first token is no end of this one.
  for (const Example& e : {kChat, chat({{"user", "a"}, {"assistant", "b"}, {"user", "c"}})})
    EXPECT_THAT(failure([&] { encoder.encode(e); }),
                HasSubstr("[chat.jsonl:1] the chat template puts no end token after the assistant's turn"));
}

TEST(Encode, TheRefusalSaysWhatToDo) {
  const Encoder encoder(chatml_tokenizer(),
                        std::make_shared<const text::ChatTemplate>(
                            "{% for m in messages %}{{ m.content }}{% endfor %}", Json::object()));
  EXPECT_THAT(
      failure([&] { encoder.encode(kChat); }),
      HasSubstr("put a template with one ({{ eos_token }} after the answer) as chat_template.jinja beside"));
}

TEST(Encode, AnEmptyAnswerTeachesToStop) {
  const Encoder encoder(chatml_tokenizer(), chatml_template());
  EXPECT_EQ(learned(encoder, chat({{"user", "q"}, {"assistant", ""}})), "<|im_end|>");
  EXPECT_EQ(learned(encoder, chat({{"user", "q"}, {"assistant", ""}, {"user", "r"}, {"assistant", "s"}})),
            "<|im_end|>|s<|im_end|>");
}

TEST(Encode, SpecialTokensInMessagesAreTextUnlessWanted) {
  const auto tokenizer = chatml_tokenizer();
  const Example e = chat({{"user", "a<|im_end|>"}, {"assistant", "b<|im_start|>c"}});
  const auto count = [&](const EncodedExample& encoded) {
    return std::count_if(encoded.ids.begin(), encoded.ids.end(),
                         [&](int32_t id) { return tokenizer->is_special(id); });
  };
  const Encoder safe(tokenizer, chatml_template()), open(tokenizer, chatml_template(), false);
  EXPECT_EQ(count(safe.encode(e)), 4) << "two turns with begin and end";
  EXPECT_EQ(count(open.encode(e)), 6);
  EXPECT_EQ(tokenizer->decode(safe.encode(e).ids, false), tokenizer->decode(open.encode(e).ids, false));
  EXPECT_EQ(learned(safe, e), "b<|im_start|>c<|im_end|>");
  // Without a template as well; but a text is what its writer made it.
  EXPECT_EQ(count(Encoder(tokenizer, nullptr).encode(e)), 2) << "BOS and the end";
  Example text;
  text.segments = {{"<|im_start|>a<|im_end|>", true}};
  text.end_of_text = false;
  EXPECT_EQ(count(safe.encode(text)), 3);
}

TEST(Encode, GenerationBlocksSayWhatIsLearned) {
  const Encoder encoder(chatml_tokenizer(),
                        std::make_shared<const text::ChatTemplate>(
                            "{% for m in messages %}<|im_start|>{{ m.role }}:{% generation %}[{{ m.content "
                            "}}]{% endgeneration %}<|im_end|>\n{% endfor %}",
                            Json::object()));
  EXPECT_EQ(learned(encoder, kChat), "[Hello.]<|im_end|>|[See you!]<|im_end|>");
}

TEST(Encode, ARefusalOfTheTemplateNamesTheExample) {
  const Encoder encoder(chatml_tokenizer(),
                        published("llama-2", {{"bos_token", "<s>"}, {"eos_token", "</s>"}}));
  EXPECT_THAT(failure([&] {
                encoder.encode(chat({{"assistant", "a"}}));
              }),
              HasSubstr("[chat.jsonl:1] its conversation cannot be written with the model's chat template: "
                        "[chat template] line 10: the template "
                        "refuses these messages: Conversation roles must alternate"));
}

TEST(Encode, TrainingTemplatesTellTheSameDayAlways) {
  const auto tokenizer = chatml_tokenizer();
  EXPECT_EQ(training_template(*tokenizer), nullptr);
  tokenizer->chat_template = "{{ eos_token }} {{ strftime_now('%d %b %Y') }}";
  EXPECT_EQ(training_template(*tokenizer)->render(Json::array(), false).text, "<|im_end|> 26 Jul 2024");
}

TEST(Encode, SegmentsEndWithTheEndToken) {
  const Encoder encoder(chatml_tokenizer(), nullptr);
  Example e;
  e.segments = {{"Q: ", false}, {"1+1", false}, {" A: 2", true}};
  const EncodedExample encoded = encoder.encode(e);
  EXPECT_EQ(encoder.tokenizer().decode(encoded.ids, false), "<|im_start|>Q: 1+1 A: 2<|im_end|>");
  EXPECT_EQ(learned_text(encoded, encoder.tokenizer()), " A: 2<|im_end|>");
  e.end_of_text = false;
  EXPECT_EQ(learned(encoder, e), " A: 2");
}

TEST(Encode, WithoutTemplateConversationsAreWrittenAsTheReferenceDoes) {
  const Encoder encoder(chatml_tokenizer(), nullptr);
  Example e = kChat;
  EXPECT_EQ(encoder.tokenizer().decode(encoder.encode(e).ids, false),
            "<|im_start|>### Human: Hi### Assistant: Hello.### Human: Bye### Assistant: See you!<|im_end|>");
  EXPECT_EQ(learned(encoder, e), "Hello.|See you!<|im_end|>");
  e.train_all = true;
  EXPECT_EQ(learned(encoder, e),
            "### Human: Hi### Assistant: Hello.### Human: Bye### Assistant: See you!<|im_end|>");
}

TEST(Encode, ATokenizerWithoutEndIsRefused) {
  const Encoder encoder(std::make_shared<ByteTokenizer>(std::vector<std::string>{}), nullptr);
  Example e;
  e.source = "a:3";
  e.segments = {{"x", true}};
  EXPECT_THAT(failure([&] { encoder.encode(e); }), HasSubstr("[a:3] the tokenizer has no end token"));
}

TEST(Encode, ShownExamplesMarkWhatIsLearned) {
  const Encoder encoder(chatml_tokenizer(), chatml_template());
  EXPECT_EQ(
      show_example(encoder.encode(chat({{"user", "é"}, {"assistant", "ü"}})), encoder.tokenizer(), false),
      "<|im_start|>user\né<|im_end|>\n<|im_start|>assistant\n«ü<|im_end|>»\n");
  EXPECT_THAT(show_example(encoder.encode(kChat), encoder.tokenizer(), true),
              HasSubstr("\033[32mHello.<|im_end|>\033[0m"));
}

}  // namespace
}  // namespace nibble::data
