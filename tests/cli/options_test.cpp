#include <gmock/gmock.h>

#include "base/error.h"
#include "cli/command.h"

namespace nibble::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Fixture {
  std::string text = "default", file;
  int64_t count = 7;
  double rate = 0.5;
  std::optional<int64_t> maybe_count;
  std::optional<double> maybe_rate;
  std::optional<std::string> maybe_text;
  std::vector<std::string> list, words;
  bool on = true, off = false;
  std::optional<bool> maybe;

  bool parse(const std::vector<std::string>& arguments) {
    Options options("try", "For the test.", "nibble try --file x");
    options.add("--file PATH", file, "a file", true);
    options.add("-t,--text", text, "a text");
    options.add("--count", count, "a count");
    options.add("--rate", rate, "a rate");
    options.add("--maybe-count", maybe_count, "a count");
    options.add("--maybe-rate", maybe_rate, "a rate");
    options.add("--maybe-text", maybe_text, "a text");
    options.add("--list", list, "many");
    options.add("words WORD…", words, "the rest");
    options.flag("--on,!--no-on", on, "on");
    options.flag("--off", off, "off");
    options.flag("--maybe,!--no-maybe", maybe, "neither");
    options.footer("The footer.");
    return options.parse(arguments);
  }
  std::string error(const std::vector<std::string>& arguments) {
    try {
      parse(arguments);
    } catch (const UsageError& e) {
      return e.what();
    }
    return "no error";
  }
};

TEST(Options, DefaultsStay) {
  Fixture f;
  ASSERT_TRUE(f.parse({"--file", "a"}));
  EXPECT_EQ(f.file, "a");
  EXPECT_EQ(f.text, "default");
  EXPECT_EQ(f.count, 7);
  EXPECT_TRUE(f.on);
  EXPECT_FALSE(f.off);
  EXPECT_FALSE(f.maybe || f.maybe_count || f.maybe_rate || f.maybe_text);
}

TEST(Options, EveryKindIsRead) {
  Fixture f;
  ASSERT_TRUE(f.parse({"--file=a",     "-t",   "b c",           "--count", "-3",
                       "--rate",       "1e-4", "--maybe-count", "5",       "--maybe-rate=-2.5",
                       "--maybe-text", "",     "--list",        "x",       "--list",
                       "[y,z]",        "one",  "k=[v,w]",       "--no-on", "--off",
                       "--no-maybe"}));
  EXPECT_EQ(f.text, "b c");
  EXPECT_EQ(f.count, -3);
  EXPECT_EQ(f.rate, 1e-4);
  EXPECT_EQ(f.maybe_count, 5);
  EXPECT_EQ(f.maybe_rate, -2.5);
  EXPECT_EQ(f.maybe_text, "");
  EXPECT_THAT(f.list, ElementsAre("x", "[y,z]"));
  EXPECT_THAT(f.words, ElementsAre("one", "k=[v,w]"));
  EXPECT_FALSE(f.on);
  EXPECT_TRUE(f.off);
  EXPECT_EQ(f.maybe, false);
}

TEST(Options, ValuesMayLookLikeOptionsOrBeEmpty) {
  Fixture f;
  ASSERT_TRUE(f.parse({"--file", "a", "--text", "--off", "--maybe-text=", "--list", "-1"}));
  EXPECT_EQ(f.text, "--off");
  EXPECT_FALSE(f.off);
  EXPECT_EQ(f.maybe_text, "");
  EXPECT_THAT(f.list, ElementsAre("-1"));
}

TEST(Options, TheLastOfSeveralCounts) {
  Fixture f;
  ASSERT_TRUE(f.parse({"--file", "a", "--count", "1", "--count", "2"}));
  EXPECT_EQ(f.count, 2);
}

TEST(Options, ErrorsNameTheOptionAndTheNearest) {
  Fixture f;
  EXPECT_THAT(f.error({}), HasSubstr("[try] --file is required; `nibble try --help` shows the options"));
  EXPECT_THAT(f.error({"--fiel", "a"}), HasSubstr("unknown option --fiel; did you mean --file?"));
  EXPECT_THAT(f.error({"--no-onn=3"}), HasSubstr("unknown option --no-onn; did you mean --no-on?"));
  EXPECT_THAT(f.error({"--zzzzzzzzzz"}), HasSubstr("unknown option --zzzzzzzzzz; `nibble"));
  EXPECT_THAT(f.error({"--file"}), HasSubstr("--file needs a value"));
  EXPECT_THAT(f.error({"--file", "a", "--off=1"}), HasSubstr("--off takes no value"));
  EXPECT_THAT(f.error({"--file", "a", "--count", "1.5"}),
              HasSubstr("[--count] expected a whole number, got '1.5'"));
  EXPECT_THAT(f.error({"--file", "a", "--count", "99999999999999999999"}),
              HasSubstr("expected a whole number"));
  EXPECT_THAT(f.error({"--file", "a", "--rate", "fast"}),
              HasSubstr("[--rate] expected a number, got 'fast'"));
  EXPECT_THAT(f.error({"--file", "a", "--maybe-rate", ""}), HasSubstr("expected a number, got ''"));
}

TEST(Options, HelpHasEverything) {
  Fixture f;
  ::testing::internal::CaptureStdout();
  EXPECT_FALSE(f.parse({"--help"}));
  const std::string help = ::testing::internal::GetCapturedStdout();
  for (const char* part :
       {"Usage: nibble try [WORD…] [OPTIONS]", "For the test.", "--file PATH", "a file (required)",
        "-t, --text TEXT", "(default: default)", "--count N", "(default: 7)", "(default: 0.5)",
        "--on, --no-on", "(default: on)", "The footer.", "Example:\n  nibble try --file x\n"})
    EXPECT_THAT(help, HasSubstr(part));
}

TEST(ModelOptions, RefusesValuesOutOfRange) {
  auto error = [](auto change) {
    ModelOptions options;
    options.model = "m";
    change(options);
    try {
      options.apply();
    } catch (const UsageError& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(error([](ModelOptions&) {}), "no error");
  EXPECT_THAT(error([](ModelOptions& o) { o.dtype = "f64"; }),
              HasSubstr("[--dtype] expected bf16 or f32, got 'f64'"));
  EXPECT_THAT(error([](ModelOptions& o) { o.device = "cuda"; }),
              HasSubstr("[--device] expected cpu or auto"));
  EXPECT_THAT(error([](ModelOptions& o) { o.threads = -1; }), HasSubstr("[--threads]"));
  EXPECT_THAT(error([](ModelOptions& o) { o.seed = -1; }), HasSubstr("[--seed]"));
  EXPECT_THAT(error([](ModelOptions& o) { o.quantize = "nf5"; }), HasSubstr("did you mean 'nf4'"));
}

}  // namespace
}  // namespace nibble::cli
