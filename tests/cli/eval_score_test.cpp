// nibble eval score, from outside.
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "base/json.h"
#include "tests/cli/run_program.h"

namespace nibble::cli {
namespace {

using ::testing::HasSubstr;

class EvalScore : public ::testing::Test {
 protected:
  void SetUp() override {
    directory_ = std::filesystem::temp_directory_path() / ("nibble-score-" + std::to_string(getpid()));
    std::filesystem::create_directories(directory_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(directory_ / name) << text;
    return (directory_ / name).string();
  }
  std::filesystem::path directory_;
};

TEST_F(EvalScore, MeasuresTextWithSeveralReferences) {
  const std::string file = write("a.jsonl", R"({"prediction": "the cat sat", "reference": "the cat sat down"}
{"prediction": " yes ", "reference": ["no", "yes"]}
)");
  const Ran ran =
      run_program({"eval", "score", "--data", file, "--metric", "rouge", "--metric", "match", "--json"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  const Json out = parse_json(ran.out, "out");
  EXPECT_EQ(out["records"], 2);
  EXPECT_DOUBLE_EQ(out["match"].get<double>(), 0.5);
  EXPECT_DOUBLE_EQ(out["rouge1"]["recall"].get<double>(), 0.875);
  EXPECT_DOUBLE_EQ(out["rougeL"]["precision"].get<double>(), 1);
}

TEST_F(EvalScore, MeasuresClassesByTheirNamesAndGlueTasks) {
  const std::string named = write("n.csv", "prediction,reference\nyes,yes\nno,yes\nno,no\nyes,yes\n");
  const Ran ran = run_program({"eval", "score", "--data", named, "--metric", "accuracy", "--metric", "f1",
                               "--positive", "yes", "--json"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  const Json out = parse_json(ran.out, "out");
  EXPECT_DOUBLE_EQ(out["accuracy"].get<double>(), 0.75);
  EXPECT_DOUBLE_EQ(out["f1"].get<double>(), 0.8);
  const std::string p = write("p.jsonl", "{\"p\": 1.5}\n{\"p\": 1.5}\n"),
                    r = write("r.jsonl", "{\"reference\": 1}\n{\"reference\": 2}\n");
  const Ran glue = run_program({"eval", "score", "--data", p, "--prediction", "p", "--references", r,
                                "--metric", "glue-stsb", "--json"});
  ASSERT_EQ(glue.code, 0) << glue.err;
  EXPECT_TRUE(parse_json(glue.out, "out")["pearson"].is_null());
}

TEST_F(EvalScore, SaysWhatIsWrong) {
  const std::string file = write("a.jsonl", "{\"prediction\": \"a\", \"answer\": \"b\"}\n");
  const auto fails = [&](std::vector<std::string> more, int code, const char* message) {
    std::vector<std::string> arguments{"eval", "score", "--data", file};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Ran ran = run_program(arguments);
    EXPECT_EQ(ran.code, code) << ran.err;
    EXPECT_THAT(ran.err, HasSubstr(message));
  };
  fails({}, 1, "has no \"reference\"; name the field with --prediction or --reference");
  fails({"--reference", "answer", "--metric", "bleu"}, 2, "\"bleu\" is not a measure");
  fails({"--reference", "answer", "--metric", "pearson"}, 1, "\"a\" is not a number");
  fails({"--references", write("two.jsonl", "{\"reference\": 1}\n{\"reference\": 2}\n")}, 1, "has 2 records");
}

}  // namespace
}  // namespace nibble::cli
