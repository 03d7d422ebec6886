#include <gmock/gmock.h>

#include "tests/data/support.h"

namespace nibble::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Records records_of(std::initializer_list<const char*> rows) {
  Records r;
  for (const char* row : rows) {
    r.records.push_back(parse_json(row, "row"));
    r.sources.push_back("file:" + std::to_string(r.records.size()));
  }
  return r;
}

std::vector<Example> read(const Records& r, FormatOptions options = {}, std::string_view name = "auto") {
  return choose_format(r, name, "file").read(r.records, r.sources, options);
}

// "role: content" of each message, "*" in front where it is learned.
std::vector<std::string> shown(const Example& e) {
  std::vector<std::string> out;
  for (size_t i = 0; i < e.messages.size(); ++i)
    out.push_back((e.train_all || e.train_message[i] ? "*" : "") + e.messages[i]["role"].get<std::string>() +
                  ": " + e.messages[i].value("content", ""));
  return out;
}

std::string error(std::initializer_list<const char*> rows, std::string_view name) {
  return failure([&] { read(records_of(rows), {}, name); });
}

TEST(Formats, AreFoundByLooking) {
  const std::pair<const char*, const char*> rows[] = {
      {R"({"messages": [{"role": "user", "content": "a"}]})", "messages"},
      {R"({"conversations": [{"from": "human", "value": "a"}]})", "sharegpt"},
      {R"({"instruction": "a", "input": "", "output": "b"})", "alpaca"},
      {R"({"instruction": "a", "instances": [{"input": "x", "output": "b"}]})", "alpaca"},
      {R"({"prompt": "a", "completion": "b"})", "prompt_completion"},
      {R"({"question": "a", "answer": "b"})", "prompt_completion"},
      {R"({"message_tree_id": "t", "prompt": {"text": "a", "role": "prompter", "replies": []}})", "oasst1"},
      {R"({"message_id": "m", "parent_id": null, "text": "a", "role": "prompter"})", "oasst1"},
      {R"({"chosen": "\n\nHuman: a", "rejected": "\n\nHuman: b"})", "hh_rlhf"},
      {R"({"text": "a"})", "text"},
  };
  for (const auto& [row, name] : rows)
    EXPECT_STREQ(choose_format(records_of({row}), "auto", "f").name, name) << row;
}

TEST(Formats, UnknownLayoutsAndNamesAreRefusedWithWhatIsKnown) {
  const std::string unknown =
      failure([] { choose_format(records_of({R"({"q": "a", "reply": "b"})"}), "auto", "x.jsonl"); });
  EXPECT_THAT(unknown, HasSubstr("no known layout fits its records (fields: q, reply)"));
  EXPECT_THAT(unknown, HasSubstr("messages, sharegpt"));
  EXPECT_THAT(failure([] { choose_format(records_of({R"({"text": "a"})"}), "alpacca", "x"); }),
              HasSubstr("did you mean alpaca?"));
}

TEST(Formats, MessagesLearnAssistantTurnsUnlessATurnSaysOtherwise) {
  const auto e = read(records_of(
      {R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a", "train": true},
      {"role": "assistant", "content": "b", "weight": 0}, {"role": "assistant", "content": "c"}]})"}));
  EXPECT_THAT(shown(e[0]), ElementsAre("system: s", "*user: a", "assistant: b", "*assistant: c"));
  EXPECT_TRUE(e[0].turn_choices);
  EXPECT_FALSE(e[0].messages[1].contains("train"));
  EXPECT_FALSE(read(records_of({R"({"messages": [{"role": "user", "content": "a"}]})"}))[0].turn_choices);
}

TEST(Formats, ShareGptNamesBecomeRoles) {
  const auto e = read(records_of(
      {R"({"system": "s", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]})"}));
  EXPECT_THAT(shown(e[0]), ElementsAre("system: s", "user: a", "*assistant: b"));
}

TEST(Formats, AlpacaIsAConversationOrThePapersPrompt) {
  const Records r = records_of({R"({"instruction": "Do.", "input": "", "output": "Done."})",
                                R"({"instruction": "Do.", "input": "this", "output": "Done."})"});
  const auto chat = read(r);
  EXPECT_THAT(shown(chat[0]), ElementsAre("user: Do.", "*assistant: Done."));
  EXPECT_THAT(shown(chat[1]), ElementsAre("user: Do.\n\nthis", "*assistant: Done."));
  const auto plain = read(r, {.has_chat_template = false});
  EXPECT_EQ(plain[0].segments[0].text,
            "Below is an instruction that describes a task. Write a response that appropriately completes "
            "the request.\n\n"
            "### Instruction:\nDo.\n\n### Response: ");
  EXPECT_EQ(plain[1].segments[0].text,
            "Below is an instruction that describes a task, paired with an input that provides further "
            "context. Write a response "
            "that appropriately completes the request.\n\n### Instruction:\nDo.\n\n### Input:\nthis\n\n### "
            "Response: ");
  EXPECT_FALSE(plain[1].segments[0].train);
  EXPECT_EQ(plain[1].segments[1].text, "Done.");
  EXPECT_TRUE(plain[1].segments[1].train);
}

TEST(Formats, SelfInstructSeedsGiveAnExamplePerInstance) {
  const auto e = read(records_of(
      {R"({"instruction": "Do.", "instances": [{"input": "x", "output": "1"}, {"input": "", "output": "2"}]})"}));
  ASSERT_EQ(e.size(), 2u);
  EXPECT_THAT(shown(e[1]), ElementsAre("user: Do.", "*assistant: 2"));
}

TEST(Formats, Oasst1TakesTheBestReplyOfEveryLevel) {
  const auto tree = read(records_of(
      {R"({"message_tree_id": "t", "prompt": {"message_id": "1", "role": "prompter", "text": "q", "replies": [
      {"message_id": "2", "role": "assistant", "text": "worse", "rank": 1, "replies": []},
      {"message_id": "3", "role": "assistant", "text": "gone", "rank": 0, "deleted": true, "replies": []},
      {"message_id": "4", "role": "assistant", "text": "better", "rank": 0, "replies": [
        {"message_id": "5", "role": "prompter", "text": "more?", "replies": [{"message_id": "6", "role": "assistant", "text": "yes", "replies": []}]}]}]}})"}));
  ASSERT_EQ(tree.size(), 1u);
  EXPECT_THAT(shown(tree[0]),
              ElementsAre("*user: q", "*assistant: better", "*user: more?", "*assistant: yes"));
  const auto flat = read(records_of(
      {R"({"message_id": "3", "parent_id": "1", "role": "assistant", "text": "worse", "rank": 1})",
       R"({"message_id": "1", "parent_id": null, "role": "prompter", "text": "q"})",
       R"({"message_id": "2", "parent_id": "1", "role": "assistant", "text": "better", "rank": 0})",
       R"({"message_id": "9", "parent_id": "2", "role": "prompter", "text": "unanswered"})"}));
  ASSERT_EQ(flat.size(), 1u);
  EXPECT_THAT(shown(flat[0]), ElementsAre("*user: q", "*assistant: better"));
}

TEST(Formats, Oasst1RowsInACircleEnd) {
  EXPECT_THAT(error({R"({"message_id": "1", "role": "prompter", "text": "q"})",
                     R"({"message_id": "2", "parent_id": "1", "role": "assistant", "text": "a"})",
                     R"({"message_id": "1", "parent_id": "2", "role": "prompter", "text": "q"})"},
                    "oasst1"),
              HasSubstr("do its replies go in a circle?"));
}

TEST(Formats, HhRlhfTakesTheChosenDialogueWhole) {
  const Records r = records_of(
      {R"({"chosen": "\n\nHuman: Hi\n\nAssistant: Hello\n\nAssistant: there\n\nHuman: Bye", "rejected": "\n\nHuman: x"})"});
  EXPECT_THAT(shown(read(r)[0]), ElementsAre("*user: Hi", "*assistant: Hello\n\nthere", "*user: Bye"));
  const auto plain = read(r, {.has_chat_template = false});
  EXPECT_EQ(plain[0].segments[0].text, r.records[0]["chosen"].get<std::string>());
  EXPECT_TRUE(plain[0].segments[0].train);
}

TEST(Formats, TextIsLearnedWhole) {
  const auto e = read(records_of({R"({"text": "abc"})", R"("bare")"}));
  EXPECT_EQ(e[1].segments[0].text, "bare");
  EXPECT_TRUE(e[0].segments[0].train);
}

TEST(Formats, ErrorsNameRecordAndField) {
  EXPECT_THAT(error({R"({"instruction": "a", "output": 3})"}, "alpaca"),
              HasSubstr("[file:1] \"output\" should be text, got number"));
  EXPECT_THAT(error({R"({"prompt": "a"})"}, "prompt_completion"),
              HasSubstr("[file:1] has no \"completion\""));
  EXPECT_THAT(error({R"([1])"}, "text"), HasSubstr("[file:1] expected an object with \"text\", got array"));
  EXPECT_THAT(error({R"({"messages": []})"}, "messages"),
              HasSubstr("[file:1] expected a list of messages, got none"));
  EXPECT_THAT(error({R"({"messages": [{"content": "a"}]})"}, "messages"),
              HasSubstr("[file:1, message 1] has no \"role\""));
  EXPECT_THAT(error({R"({"messages": [{"role": "user", "content": null}]})"}, "messages"),
              HasSubstr("\"content\" should be text, got null"));
  EXPECT_THAT(error({R"({"messages": [{"role": "bot", "content": "a"}]})"}, "messages"),
              HasSubstr("unknown role \"bot\""));
  EXPECT_THAT(error({R"({"messages": [7]})"}, "messages"),
              HasSubstr("expected an object with \"role\", got number"));
  EXPECT_THAT(error({R"({"conversations": [{"from": "alien", "value": "a"}]})"}, "sharegpt"),
              HasSubstr("unknown \"from\": \"alien\""));
  EXPECT_THAT(error({R"({"chosen": "Hello", "rejected": ""})"}, "hh_rlhf"),
              HasSubstr("\"chosen\" should be turns that begin with"));
  EXPECT_THAT(error({R"({"message_id": "1", "role": "judge", "text": "q"})"}, "oasst1"),
              HasSubstr("unknown role \"judge\""));
}

TEST(Formats, RealDataSetsAreRecognised) {
  const std::string folder = NIBBLE_SOURCE_DIR "/../shared/data/instruct/";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no ../shared/data/instruct";
  struct Known {
    const char *file, *format;
    size_t at_least;
  };
  const Known known[] = {{"alpaca_5000.json", "alpaca", 5000},
                         {"alpaca_cleaned_1000_fastchat.json", "alpaca", 1000},
                         {"lima_train_1k.json", "alpaca", 1000},
                         {"selfinstruct_seed_tasks.jsonl", "alpaca", 175},
                         {"openassistant_en_100_trees.jsonl", "oasst1", 90},
                         {"dolly_open_qa_3742.jsonl", "text", 3742},
                         {"wikisql_lora_valid.jsonl", "text", 100}};
  for (const Known& k : known) {
    SCOPED_TRACE(k.file);
    const Records r = read_records(folder + k.file);
    const DataFormat& format = choose_format(r, "auto", k.file);
    EXPECT_STREQ(format.name, k.format);
    EXPECT_GE(format.read(r.records, r.sources, {}).size(), k.at_least);
  }
}

}  // namespace
}  // namespace nibble::data
