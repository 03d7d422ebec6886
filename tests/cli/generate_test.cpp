// nibble generate, chat and eval ppl from outside, on stories260K (f32, about a quarter of a million
// parameters).
#include <gmock/gmock.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "tests/cli/run_program.h"

namespace nibble::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class StoriesProgram : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(kModel)) GTEST_SKIP() << "needs " << kModel;
    directory_ = std::filesystem::temp_directory_path() / ("nibble-cli-" + std::to_string(::getpid()));
    std::filesystem::create_directories(directory_);
  }
  void TearDown() override {
    if (!directory_.empty()) std::filesystem::remove_all(directory_);
  }
  std::string write(const std::string& name, const std::string& text) const {
    const std::string path = (directory_ / name).string();
    std::ofstream(path) << text;
    return path;
  }
  std::vector<std::string> command(std::vector<std::string> words,
                                   const std::vector<std::string>& more) const {
    for (const char* word : {"--model", kModel.c_str(), "--dtype", "f32"}) words.emplace_back(word);
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  Json generate_json(const std::vector<std::string>& more) const {
    std::vector<std::string> words = command({"generate"}, more);
    words.emplace_back("--json");
    const Ran ran = run_program(words);
    EXPECT_EQ(ran.code, 0) << ran.err;
    EXPECT_EQ(ran.err, "");
    return parse_json(ran.out, "stdout");
  }
  static inline const std::string kModel =
      NIBBLE_SOURCE_DIR "/../shared/data/models/stories260K/stories260K.bin";
  std::filesystem::path directory_;
};

TEST_F(StoriesProgram, GreedyTextIsTheKnownOne) {
  // As llama2.c's own `run` continues it at temperature 0.
  const Ran ran = run_program(
      command({"generate"}, {"--prompt", "Once upon a time", "--max-new-tokens", "60", "--greedy"}));
  EXPECT_EQ(ran.code, 0);
  EXPECT_EQ(ran.err, "");
  EXPECT_EQ(ran.out,
            ", there was a little girl named Lily. She loved to play outside in the park. One day, she saw a "
            "big, red ball. She wanted "
            "to play with it, but it was too high.\nLily\n");
}

TEST_F(StoriesProgram, JsonHasWhatTheTextHas) {
  const Json json =
      generate_json({"--prompt", "Once upon a time", "--max-new-tokens", "12", "--temperature", "0"});
  EXPECT_THAT(json["text"].get<std::string>(), StartsWith(", there was a little girl"));
  EXPECT_EQ(json["tokens"].size(), 12u);
  EXPECT_EQ(json["prompt_tokens"], 5);
  EXPECT_EQ(json["finish_reason"], "length");
  EXPECT_GT(json["tokens_per_second"].get<double>(), 0);
}

TEST_F(StoriesProgram, SameSeedSameText) {
  const std::vector<std::string> ask{
      "--prompt", "The dog", "--max-new-tokens", "30", "--temperature", "1", "--top-p", "1", "--seed"};
  auto text = [&](const char* seed) {
    std::vector<std::string> words = ask;
    words.emplace_back(seed);
    return generate_json(words)["text"];
  };
  EXPECT_EQ(text("1"), text("1"));
  EXPECT_NE(text("1"), text("2"));
}

TEST_F(StoriesProgram, ManyPromptsComeBackInOrderAndAsTheyWouldAlone) {
  const std::string file =
      write("prompts.jsonl", "\"Once upon a time\"\n{\"prompt\": \"The dog\"}\n\n\"A big red ball was\"\n");
  for (const char* batch : {"1", "2", "16"}) {
    const Json all = generate_json({"--prompts", file, "--max-new-tokens", "25", "--batch-size", batch});
    ASSERT_EQ(all.size(), 3u);
    const char* prompts[] = {"Once upon a time", "The dog", "A big red ball was"};
    for (size_t i = 0; i < 3; ++i)
      EXPECT_EQ(all[i]["tokens"], generate_json({"--prompt", prompts[i], "--max-new-tokens", "25"})["tokens"])
          << batch << " " << i;
  }
  const Ran plain = run_program(command({"generate"}, {"--prompts", file, "--max-new-tokens", "3"}));
  EXPECT_EQ(plain.code, 0);
  EXPECT_EQ(split(plain.out, '\n').size(), 6u);  // three answers, two blank lines, the end
}

TEST_F(StoriesProgram, PublishedListsOfQuestionsAreReadAsTheyAre) {
  const std::string vicuna =
      "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
      "detailed, and polite answers to the user's questions. ### Human: Why? ### Assistant:";
  const std::string list = write("list.jsonl", R"({"question_id": 1, "text": "Why?", "category": "generic"}
{"question_id": 2, "turns": ["Why?", "And then?"]}
{"question_id": "x", "text": "### Human: Hi### Assistant: Oh### Human: Why?### Assistant:", "prompt": "Once upon a time"}
{"question_id": 3, "text": "### Human: Why? ### Assistant:"}
)");
  const std::string out = (directory_ / "out.jsonl").string();
  const Ran ran = run_program(
      command({"generate"}, {"--prompts", list, "--out", out, "--greedy", "--max-new-tokens", "8"}));
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(ran.out, "");
  std::vector<Json> lines;
  for (const std::string& line : split(read_file(out), '\n'))
    if (!line.empty()) lines.push_back(parse_json(line, out));
  ASSERT_EQ(lines.size(), 4u);
  const auto alone = [&](const std::string& prompt) {
    return generate_json({"--prompt", prompt, "--greedy", "--max-new-tokens", "8"})["text"];
  };
  EXPECT_EQ(lines[0]["generation"], alone(vicuna));
  EXPECT_EQ(lines[0]["question_id"], 1);
  EXPECT_EQ(lines[0]["category"], "generic");
  EXPECT_EQ(lines[0]["finish_reason"], "length");
  EXPECT_EQ(lines[1]["generation"], lines[0]["generation"]);
  EXPECT_EQ(lines[2]["generation"], alone("Once upon a time"));
  EXPECT_EQ(lines[3]["generation"], alone("### Human: Why? ### Assistant:"));
  const auto fails = [&](const std::string& record, const char* message) {
    EXPECT_THAT(run_program(command({"generate"}, {"--prompts", write("bad.jsonl", record)})).err,
                HasSubstr(message));
  };
  fails("{\"question_id\": 1}", "text");
  fails("{\"question_id\": 1, \"turns\": []}", "\"turns\" is empty");
  EXPECT_THAT(run_program(command({"generate"}, {"--prompt", "x", "--out", out})).err,
              HasSubstr("--out needs --prompts"));
}

TEST_F(StoriesProgram, StopTextEndsTheAnswer) {
  const Json json =
      generate_json({"--prompt", "Once upon a time", "--greedy", "--stop", "Lily", "--stop", "never"});
  EXPECT_EQ(json["text"], ", there was a little girl named ");
  EXPECT_EQ(json["finish_reason"], "stop");
}

TEST_F(StoriesProgram, WrongUsageOfGenerate) {
  auto error = [&](const std::vector<std::string>& more, int code) {
    const Ran ran = run_program(command({"generate"}, more));
    EXPECT_EQ(ran.code, code) << ran.err;
    EXPECT_EQ(ran.out, "");
    return ran.err;
  };
  EXPECT_THAT(error({}, 2), HasSubstr("give either --prompt TEXT or --prompts FILE.jsonl"));
  EXPECT_THAT(error({"--prompt", "a", "--prompts", "b"}, 2), HasSubstr("give either"));
  EXPECT_THAT(error({"--prompt", "a", "--top-p", "2"}, 2), HasSubstr("[--top-p]"));
  EXPECT_THAT(error({"--prompt", "a", "--max-new-tokens", "0"}, 2), HasSubstr("[--max-new-tokens]"));
  EXPECT_THAT(error({"--prompt", "a", "--system", "b"}, 2), HasSubstr("--system needs --chat"));
  EXPECT_THAT(error({"--prompt", "a", "--chat"}, 1), HasSubstr("the model has no chat template"));
  EXPECT_THAT(error({"--prompt", "a", "--context", "513"}, 1),
              HasSubstr("513 tokens asked for, the model was made for 512"));
  EXPECT_THAT(error({"--prompt", "a", "--context", "2"}, 1),
              HasSubstr("leaves no room for an answer in a context of 2"));
  EXPECT_THAT(error({"--prompts", write("bad.jsonl", "\"a\"\n{\"prompt\": }\n")}, 1),
              HasSubstr("bad.jsonl:2]"));
  EXPECT_THAT(error({"--prompts", write("kind.jsonl", "\"a\"\n[1]\n")}, 1),
              HasSubstr("kind.jsonl:2] expected a string"));
  EXPECT_THAT(error({"--prompts", write("bytes.jsonl", "\"a\"\n\n\"\xff\"\n")}, 1),
              HasSubstr("bytes.jsonl:3]"));
  EXPECT_THAT(error({"--prompts", write("empty.jsonl", "\n \n")}, 1),
              HasSubstr("empty.jsonl] the file holds no JSON line"));
}

TEST_F(StoriesProgram, CtrlCIs130) {
  // A long run at batch 1: it is interrupted after the first words.
  const Ran ran = run_program_interrupted(
      command({"generate"}, {"--prompt", "Once", "--max-new-tokens", "500", "--temperature", "2"}), 10);
  EXPECT_EQ(ran.code, 130);
  EXPECT_THAT(ran.err, HasSubstr("nibble: [generate] stopped"));
}

TEST_F(StoriesProgram, ChatNeedsATemplate) {
  const Ran ran = run_program(command({"chat"}, {}), "Hello\n");
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.err, HasSubstr("the model has no chat template"));
}

TEST_F(StoriesProgram, PerplexityOfTextAndRecords) {
  const std::string story = "One day, a little girl named Lily found a needle in her room.";
  const std::string text = write("story.txt", story);
  const std::string records =
      write("stories.jsonl", Json{{"story", story}}.dump() + "\n" + Json{{"story", story}}.dump() + "\n");
  const std::string per_token = (directory_ / "tokens.jsonl").string();
  auto ppl = [&](const std::vector<std::string>& more) {
    std::vector<std::string> words = command({"eval", "ppl"}, more);
    words.emplace_back("--json");
    const Ran ran = run_program(words);
    EXPECT_EQ(ran.code, 0) << ran.err;
    return parse_json(ran.out, "stdout");
  };
  const Json one = ppl({"--text", text, "--context", "64", "--stride", "32", "--per-token", per_token});
  EXPECT_EQ(one["documents"], 1);
  EXPECT_NEAR(one["ppl"].get<double>(), std::exp(one["nll"].get<double>()), 1e-6);
  double sum = 0;
  int64_t lines = 0;
  for (const std::string& line : split(read_file(per_token), '\n'))
    if (!line.empty()) {
      sum += parse_json(line, per_token)["logprob"].get<double>();
      ++lines;
    }
  EXPECT_EQ(lines, one["tokens"]);
  EXPECT_NEAR(-sum / static_cast<double>(lines), one["nll"].get<double>(), 1e-6);
  const Json two = ppl({"--data", records, "--field", "story", "--context", "64", "--stride", "32"});
  EXPECT_EQ(two["documents"], 2);
  EXPECT_EQ(two["tokens"].get<int64_t>(), 2 * one["tokens"].get<int64_t>());
  EXPECT_NEAR(two["nll"].get<double>(), one["nll"].get<double>(), 1e-6);

  const Ran usage =
      run_program(command({"eval", "ppl"}, {"--text", text, "--context", "64", "--stride", "65"}));
  EXPECT_EQ(usage.code, 2);
  EXPECT_THAT(usage.err, HasSubstr("[--stride]"));
  const Ran field = run_program(command({"eval", "ppl"}, {"--data", records}));
  EXPECT_EQ(field.code, 1);
  EXPECT_THAT(field.err, HasSubstr("stories.jsonl:1] "));
  EXPECT_THAT(field.err, HasSubstr("\"text\""));
  const Ran full =
      run_program(command({"eval", "ppl"}, {"--text", text, "--per-token", "/no/such/directory/x"}));
  EXPECT_EQ(full.code, 1);
  EXPECT_THAT(full.err, HasSubstr("/no/such/directory"));
}

}  // namespace
}  // namespace nibble::cli
