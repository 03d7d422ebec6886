// Conversations on the tiny model: what is said is noise, how the program behaves around it is not.
#include "base/text.h"
#include "tests/cli/tiny_chat_model.h"

namespace nibble::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class ChatProgram : public TinyChatModel {
 protected:
  Ran run(std::vector<std::string> words, const std::vector<std::string>& more,
          const std::string& input = "") const {
    for (const std::string& word :
         {std::string("--model"), directory_.string(), std::string("--dtype"), std::string("f32")})
      words.push_back(word);
    words.insert(words.end(), more.begin(), more.end());
    return run_program(words, input);
  }
  Ran chat(const std::string& input, const std::vector<std::string>& more = {}) const {
    std::vector<std::string> words{"--greedy", "--max-new-tokens", "6"};
    words.insert(words.end(), more.begin(), more.end());
    return run({"chat"}, words, input);
  }
  std::string answer(const Json& messages) const {
    const std::string file = write("messages.jsonl", Json{{"messages", messages}}.dump() + "\n");
    const Ran ran = run({"generate"}, {"--prompts", file, "--json", "--greedy", "--max-new-tokens", "6"});
    EXPECT_EQ(ran.code, 0) << ran.err;
    return parse_json(ran.out, "stdout").at(0)["text"].get<std::string>();
  }
};

Json message(const char* role, const std::string& content) { return {{"role", role}, {"content", content}}; }

TEST_F(ChatProgram, TurnsBuildOnEachOther) {
  const std::string first = answer(Json::array({message("user", "hello")}));
  const std::string second =
      answer(Json::array({message("user", "hello"), message("assistant", first), message("user", "more")}));
  EXPECT_NE(second, answer(Json::array({message("user", "more")})));
  const Ran ran = chat("hello\n\nmore\n");
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(ran.out, first + "\n" + second + "\n");
}

TEST_F(ChatProgram, ResetSystemHelpAndExit) {
  const std::string plain = answer(Json::array({message("user", "hello")}));
  const std::string led = answer(Json::array({message("system", "Be kind"), message("user", "hello")}));
  EXPECT_NE(plain, led);
  const Ran ran = chat("hello\n/reset\nhello\n/reset\n/system Be kind\nhello\n/help\n/what\n/exit\nhello\n");
  EXPECT_EQ(ran.code, 0);
  EXPECT_EQ(ran.out, plain + "\n" + plain + "\n" + led + "\n");
  EXPECT_THAT(ran.err, HasSubstr("[the conversation is forgotten]"));
  EXPECT_THAT(ran.err, HasSubstr("/system [TEXT]  set the system message"));
  EXPECT_THAT(ran.err, HasSubstr("[there is no /what]"));
  EXPECT_EQ(chat("hello\n", {"--system", "Be kind"}).out, led + "\n");
}

TEST_F(ChatProgram, OldTurnsAreDroppedAloudWhenTheContextIsFull) {
  const std::string text = "abcdefghijklmnopqrstuvwxyz";
  const Ran ran = chat(text + "\n" + text + "\n" + text + "\n", {"--context", "120"});
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_THAT(ran.err, HasSubstr("[the context of 120 tokens is full: the 2 oldest messages were dropped]"));
  EXPECT_EQ(split(ran.out, '\n').size(), 4u);
}

TEST_F(ChatProgram, AMessageThatCannotFitIsNotSent) {
  const Ran ran = chat(std::string(200, 'a') + "\nhello\n");
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_THAT(ran.err, HasSubstr("does not fit a context of 128; it was not sent]"));
  EXPECT_EQ(ran.out, answer(Json::array({message("user", "hello")})) + "\n");
}

TEST_F(ChatProgram, InvalidBytesOnTheInputAreReplaced) {
  const Ran ran = chat("a\xff\n");
  EXPECT_EQ(ran.code, 0) << ran.err;
}

TEST_F(ChatProgram, ChatOfGenerateIsAUserTurn) {
  const std::string plain = answer(Json::array({message("user", "hello")}));
  const Ran ran = run({"generate"}, {"--prompt", "hello", "--chat", "--greedy", "--max-new-tokens", "6"});
  EXPECT_EQ(ran.out, plain + "\n") << ran.err;
  const std::string led = answer(Json::array({message("system", "Be kind"), message("user", "hello")}));
  EXPECT_EQ(run({"generate"},
                {"--prompt", "hello", "--chat", "--system", "Be kind", "--greedy", "--max-new-tokens", "6"})
                .out,
            led + "\n");
}

TEST_F(ChatProgram, TheTemplatesOwnRefusalIsShown) {
  const std::string file = write("who.jsonl", R"({"messages": [{"role": "ghost", "content": "boo"}]})");
  const Ran ran = run({"generate"}, {"--prompts", file, "--json"});
  EXPECT_EQ(ran.code, 1);
  EXPECT_EQ(ran.out, "");
  EXPECT_THAT(ran.err, HasSubstr("who is that"));
}

TEST_F(ChatProgram, ABrokenTemplateMattersOnlyToChats) {
  write("tokenizer_config.json", Json{{"eos_token", "<end>"}, {"chat_template", "{% nonsense %}"}}.dump());
  EXPECT_EQ(run({"generate"}, {"--prompt", "hello", "--max-new-tokens", "2"}).code, 0);
  const Ran ran = chat("hello\n");
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.err, HasSubstr("its chat template cannot be used"));
  EXPECT_THAT(ran.err, HasSubstr("nonsense"));
}

TEST_F(ChatProgram, ATokenizerOfAnotherModelIsRefused) {
  Json tokenizer = tokenizer_json();
  for (int id = 61; id < 100; ++id) tokenizer["model"]["vocab"]["x" + std::to_string(id)] = id;
  write("tokenizer.json", tokenizer.dump());
  const Ran ran = run({"generate"}, {"--prompt", "hello"});
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.err,
              HasSubstr("has 100 tokens but the model has 96 embeddings; they do not belong together"));
}

TEST_F(ChatProgram, AdaptersChangeTheAnswerAndThoseOfAnotherBaseAreRefused) {
  namespace fs = std::filesystem;
  const fs::path adapter = directory_ / "adapter";
  fs::copy(NIBBLE_SOURCE_DIR "/tests/goldens/tiny_llama/adapter", adapter, fs::copy_options::recursive);
  const std::vector<std::string> ask{"--prompt", "hello", "--greedy", "--max-new-tokens", "12"};
  std::vector<std::string> with = ask;
  with.insert(with.end(), {"--adapter", adapter.string()});
  const Ran tuned = run({"generate"}, with);
  EXPECT_EQ(tuned.code, 0) << tuned.err;
  EXPECT_NE(tuned.out, run({"generate"}, ask).out);
  std::ofstream(adapter / "nibble_manifest.json") << R"({"base_hash": "0123456789abcdef0123456789abcdef"})";
  const Ran refused = run({"generate"}, with);
  EXPECT_EQ(refused.code, 1);
  EXPECT_THAT(
      refused.err,
      HasSubstr("this adapter was trained on other weights: its manifest names base 0123456789abcdef"));
}

}  // namespace
}  // namespace nibble::cli
