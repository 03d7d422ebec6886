// The frame of the program as a user meets it: help, versions, exit codes, where output goes.
#include <gmock/gmock.h>

#include "base/json.h"
#include "cli/command.h"
#include "tests/cli/run_program.h"

namespace nibble::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

std::vector<std::string> words_of(const Command& command) {
  std::vector<std::string> words;
  std::string word;
  for (const char c : std::string(command.name) + " ")
    if (c == ' ')
      words.push_back(std::exchange(word, ""));
    else
      word += c;
  return words;
}

TEST(Program, HelpListsEveryCommandWithOneLine) {
  const Ran ran = run_program({"--help"});
  EXPECT_EQ(ran.code, 0);
  EXPECT_EQ(ran.err, "");
  ASSERT_FALSE(commands().empty());
  for (const Command& c : commands()) {
    EXPECT_THAT(ran.out, HasSubstr(std::string("\n  ") + c.name + " "));
    EXPECT_THAT(ran.out, HasSubstr(std::string(c.about) + "\n"));
  }
  EXPECT_THAT(ran.out, HasSubstr("\nExample:\n  nibble "));
}

TEST(Program, EveryCommandExplainsItselfWithAnExample) {
  for (const Command& c : commands()) {
    SCOPED_TRACE(c.name);
    std::vector<std::string> words = words_of(c);
    words.push_back("--help");
    const Ran ran = run_program(words);
    EXPECT_EQ(ran.code, 0);
    EXPECT_EQ(ran.err, "");
    EXPECT_THAT(ran.out, StartsWith(std::string("Usage: nibble ") + c.name));
    EXPECT_THAT(ran.out, HasSubstr(std::string("\nExample:\n  nibble ") + c.name + " "));
    words.pop_back();
    words.insert(words.begin(), "help");
    EXPECT_EQ(run_program(words).out, ran.out);
  }
}

TEST(Program, EveryCommandRefusesUnknownOptionsWithItsName) {
  for (const Command& c : commands()) {
    SCOPED_TRACE(c.name);
    std::vector<std::string> words = words_of(c);
    words.push_back("--no-such-option");
    const Ran ran = run_program(words);
    EXPECT_EQ(ran.code, 2);
    EXPECT_EQ(ran.out, "");
    EXPECT_THAT(ran.err, HasSubstr("--no-such-option"));
    EXPECT_THAT(ran.err, HasSubstr(std::string("`nibble ") + c.name + " --help`"));
  }
}

TEST(Program, OneJsonDocumentOrNone) {
  // Commands that offer --json print nothing else to standard output, errors included.
  for (const Command& c : commands()) {
    SCOPED_TRACE(c.name);
    std::vector<std::string> words = words_of(c);
    words.push_back("--help");
    const bool has = run_program(words).out.find("  --json") != std::string::npos;
    EXPECT_EQ(has, std::string(c.name) != "chat");
    if (!has) continue;
    words.back() = "--json";
    const Ran ran = run_program(words);  // what it works on is missing
    EXPECT_EQ(ran.code, 2);
    EXPECT_EQ(ran.out, "");
  }
}

TEST(Program, Version) {
  const Ran ran = run_program({"--version"});
  EXPECT_EQ(ran.code, 0);
  EXPECT_THAT(ran.out, ::testing::MatchesRegex("nibble [0-9]+\\.[0-9]+\\.[0-9]+\n"));
}

TEST(Program, WrongUsageIsTwo) {
  const Ran nothing = run_program({});
  EXPECT_EQ(nothing.code, 2);
  EXPECT_EQ(nothing.out, "");
  EXPECT_THAT(nothing.err, HasSubstr("Usage: nibble COMMAND"));
  const Ran unknown = run_program({"generat"});
  EXPECT_EQ(unknown.code, 2);
  EXPECT_THAT(unknown.err,
              HasSubstr("nibble: [nibble] there is no command 'generat'; did you mean 'generate'?"));
  const Ran far = run_program({"xyzzyxyzzy"});
  EXPECT_EQ(far.code, 2);
  EXPECT_THAT(far.err, Not(HasSubstr("did you mean")));
}

TEST(Program, AGroupListsItsCommands) {
  const Ran alone = run_program({"eval"});
  EXPECT_EQ(alone.code, 2);
  EXPECT_EQ(alone.out, "");
  EXPECT_THAT(alone.err, HasSubstr("eval ppl "));
  EXPECT_THAT(alone.err, Not(HasSubstr("generate")));
  const Ran help = run_program({"eval", "--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_EQ(help.out, alone.err);
  const Ran unknown = run_program({"eval", "pppl"});
  EXPECT_EQ(unknown.code, 2);
  EXPECT_THAT(unknown.err, HasSubstr("did you mean 'eval ppl'?"));
}

TEST(Program, FailureIsOneAndNamesTheFile) {
  const Ran ran = run_program({"generate", "--model", "/no/such/model", "--prompt", "x", "--json"});
  EXPECT_EQ(ran.code, 1);
  EXPECT_EQ(ran.out, "");
  EXPECT_THAT(ran.err, StartsWith("nibble: [/no/such/model] "));
}

}  // namespace
}  // namespace nibble::cli
