// nibble inspect data and nibble eval match from outside, on the tiny model.
#include <pty.h>
#include <sys/wait.h>

#include "base/text.h"
#include "tests/cli/tiny_chat_model.h"

namespace nibble::cli {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::string conversation(const std::string& user, const std::string& assistant) {
  return Json{{"messages",
               {{{"role", "user"}, {"content", user}}, {{"role", "assistant"}, {"content", assistant}}}}}
             .dump() +
         "\n";
}

class DataProgram : public TinyChatModel {
 protected:
  Ran inspect(const std::string& text, const std::vector<std::string>& more = {}) const {
    std::vector<std::string> words = {"inspect",           "data",   "--model",
                                      directory_.string(), "--data", write("data.jsonl", text)};
    words.insert(words.end(), more.begin(), more.end());
    return run_program(words);
  }
};

TEST_F(DataProgram, ShowsWhatIsLearnedAndHowLongItIs) {
  const Ran ran =
      inspect(conversation("hello", "good day") + conversation("bye", "bye") + conversation("bye", "bye"),
              {"--examples", "2"});
  EXPECT_EQ(ran.code, 0) << ran.err;
  EXPECT_THAT(ran.out, AllOf(HasSubstr("data.jsonl: messages, 3 examples"),
                             HasSubstr("<start>assistant\n«good day<end>»\n"),
                             HasSubstr("nothing would be cut"), HasSubstr("1 examples are exact duplicates"),
                             HasSubstr("examples by length in tokens:")));
  EXPECT_THAT(ran.out, Not(HasSubstr("\033[")));
}

TEST_F(DataProgram, InATerminalLearnedTokensAreGreen) {
  const std::string data = write("data.jsonl", conversation("hello", "good day")),
                    program = NIBBLE_BINARY_DIR "/nibble";
  int terminal = -1;
  const pid_t child = ::forkpty(&terminal, nullptr, nullptr, nullptr);
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::execl(program.c_str(), program.c_str(), "inspect", "data", "--model", directory_.c_str(), "--data",
            data.c_str(), nullptr);
    ::_exit(127);
  }
  std::string out;
  char buffer[4096];
  for (ssize_t n = 0; (n = ::read(terminal, buffer, sizeof buffer)) > 0;)
    out.append(buffer, static_cast<size_t>(n));
  ::close(terminal);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_THAT(out, HasSubstr("\033[32mgood day<end>\033[0m"));
}

TEST_F(DataProgram, SaysWhatWouldBeCutUnderEachPolicy) {
  const std::string text = conversation("a", "b") + conversation("a", std::string(60, 'c')) +
                           conversation("b", std::string(70, 'd'));
  const auto with = [&](const char* policy) {
    const Ran ran = inspect(text, {"--max-seq-length", "50", "--overlong", policy});
    EXPECT_EQ(ran.code, 0) << ran.err;
    return ran.out;
  };
  EXPECT_THAT(with("error"), HasSubstr("2 examples are longer: training refuses that (overlong: error)"));
  EXPECT_THAT(with("truncate"), HasSubstr("2 examples are longer: their ends are cut off"));
  EXPECT_THAT(with("drop"), HasSubstr("2 examples are longer: they are left out"));
  EXPECT_THAT(with("split"), HasSubstr("2 examples are longer: they are cut into parts"));
  const Ran ran = inspect(text, {"--max-seq-length", "50", "--json", "--examples", "3"});
  const Json json = parse_json(ran.out, "stdout");
  EXPECT_EQ(ran.err, "");
  EXPECT_EQ(json["report"]["overlong"], 2);
  ASSERT_EQ(json["examples"].size(), 3u);
  const Json& first = json["examples"][0];
  EXPECT_EQ(first["ids"].size(), first["train"].size());
  EXPECT_EQ(first["ids"].size(), first["pieces"].size());
  int64_t trained = 0;
  for (const Json& t : first["train"]) trained += t.get<int64_t>();
  EXPECT_EQ(trained, 2) << "the answer's one letter and its end";
  EXPECT_GT(json["packing"]["fill"].get<double>(), 0);
}

TEST_F(DataProgram, WrongUsageAndBadFiles) {
  const auto error = [&](const Ran& ran, int code) {
    EXPECT_EQ(ran.code, code) << ran.err;
    EXPECT_EQ(ran.out, "");
    return ran.err;
  };
  EXPECT_THAT(error(run_program({"inspect", "data", "--model", directory_.string()}), 2),
              HasSubstr("name one with --data FILE"));
  const std::string good = conversation("a", "b");
  EXPECT_THAT(error(inspect(good, {"--examples", "-1"}), 2), HasSubstr("[--examples]"));
  EXPECT_THAT(error(inspect(good, {"--overlong", "cut"}), 2), AllOf(HasSubstr("cut"), HasSubstr("truncate")));
  EXPECT_EQ(inspect(good, {"--format", "nonsense"}).code, 2);
  EXPECT_THAT(error(inspect(good + "{\n"), 1), HasSubstr("data.jsonl:2]"));
  EXPECT_THAT(error(inspect(""), 1), HasSubstr("data.jsonl]"));
  EXPECT_THAT(error(inspect("{\"odd\": 1}\n"), 1), AllOf(HasSubstr("odd"), HasSubstr("messages")));
}

class MatchProgram : public TinyChatModel {
 protected:
  Ran match(const std::string& lines, const std::vector<std::string>& more = {}) const {
    std::vector<std::string> words = {"eval",
                                      "match",
                                      "--model",
                                      directory_.string(),
                                      "--dtype",
                                      "f32",
                                      "--max-new-tokens",
                                      "6",
                                      "--data",
                                      write("cases.jsonl", lines)};
    words.insert(words.end(), more.begin(), more.end());
    return run_program(words);
  }
  Json matched(const std::string& lines, std::vector<std::string> more = {}) const {
    more.emplace_back("--json");
    const Ran ran = match(lines, more);
    EXPECT_EQ(ran.code, 0) << ran.err;
    return parse_json(ran.out, "stdout");
  }
};

TEST_F(MatchProgram, CountsAnswersThatAreTheReferenceToTheLetter) {
  // The model's own answers are the references of a second look.
  const Json first = matched(conversation("hello", "x") + conversation("more", "x"));
  EXPECT_EQ(first["records"], 2);
  EXPECT_EQ(first["right"], 0);
  const auto answer = [&](size_t i) { return first["answers"][i]["answer"].get<std::string>(); };
  ASSERT_FALSE(answer(0).empty());
  const std::string lines = conversation("hello", answer(0)) + conversation("more", answer(1) + "x");
  const Json second = matched(lines);
  EXPECT_EQ(second["right"], 1);
  EXPECT_EQ(second["exact_match"], 0.5);
  EXPECT_EQ(second["answers"][0]["right"], true);
  EXPECT_EQ(second["answers"][1]["right"], false);
  EXPECT_EQ(second["answers"][1]["question"], "more");
  const Ran text = match(lines);
  EXPECT_EQ(text.code, 0);
  EXPECT_THAT(text.out, AllOf(HasSubstr("1 of 2 right,  50.0 %"), HasSubstr("wanted")));
}

TEST_F(MatchProgram, ComparesTheBaseWithTheAdapter) {
  const std::string adapter = NIBBLE_SOURCE_DIR "/tests/goldens/tiny_llama/adapter";
  const std::string base = matched(conversation("hello", "x"))["answers"][0]["answer"];
  const Json json = matched(conversation("hello", base), {"--adapter", adapter, "--compare"});
  EXPECT_EQ(json["base_exact_match"], 1.0);
  EXPECT_EQ(json["exact_match"], 0.0) << json;
  EXPECT_EQ(json["answers"][0]["base_answer"], base);
  const Ran text = match(conversation("hello", base), {"--adapter", adapter, "--compare"});
  EXPECT_THAT(text.out, AllOf(HasSubstr("before    1 of 1 right"), HasSubstr("after     0 of 1 right")));
}

TEST_F(MatchProgram, PromptAndCompletionAndBadRecords) {
  EXPECT_EQ(matched(R"({"prompt": "hello", "completion": "x"})"
                    "\n")["records"],
            1);
  const auto error = [&](const std::string& lines, int code, const std::vector<std::string>& more = {}) {
    const Ran ran = match(lines, more);
    EXPECT_EQ(ran.code, code) << ran.err;
    EXPECT_EQ(ran.out, "");
    return ran.err;
  };
  EXPECT_THAT(error(conversation("a", "b"), 2, {"--compare"}), HasSubstr("--compare needs --adapter DIR"));
  EXPECT_THAT(error(conversation("a", "b") + "{\"text\": 1}\n", 1),
              HasSubstr("cases.jsonl] no known layout fits its records"));
  EXPECT_THAT(error(R"({"messages": [{"role": "user", "content": "a"}]})"
                    "\n",
                    1),
              HasSubstr("should end with the assistant's reference answer"));
  EXPECT_THAT(error("", 1), HasSubstr("cases.jsonl]"));
}

}  // namespace
}  // namespace nibble::cli
