// ROUGE against rouge-score, stems against NLTK, other measures against scikit-learn and SciPy.
#include <gmock/gmock.h>

#include <cmath>
#include <fstream>
#include <sstream>

#include "base/file.h"
#include "base/json.h"
#include "eval/exact_match.h"
#include "eval/porter.h"
#include "eval/rouge.h"
#include "eval/scores.h"
#include "tests/eval/support.h"

namespace nibble::eval {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::string kGoldens = NIBBLE_SOURCE_DIR "/tests/goldens/measures/";
const std::string kInstruct = kSharedData + "/instruct/";

Json golden(const std::string& name) { return parse_json(read_file(kGoldens + name), name); }

// Precision, recall and F of 1, 2 and L, without and with stems: equal to the last digit.
void expect_scores(const std::string& prediction, const std::vector<std::string>& references,
                   const Json& expected) {
  ASSERT_EQ(expected.size(), 18u);
  size_t at = 0;
  for (const bool stem : {false, true}) {
    const Rouge r = rouge(prediction, references, stem);
    for (const RougeScore& s : {r.one, r.two, r.l})
      for (const double value : {s.precision, s.recall, s.f}) {
        EXPECT_EQ(value, expected[at].get<double>()) << "number " << at << " of " << prediction;
        ++at;
      }
  }
}

std::vector<Json> json_lines(const std::string& path) {
  std::vector<Json> out;
  std::istringstream text(read_file(path));
  for (std::string line; std::getline(text, line);)
    if (!line.empty()) out.push_back(parse_json(line, path));
  return out;
}

TEST(Rouge, EqualsThePackageOnCommittedPairs) {
  const Json cases = golden("rouge_pairs.json");
  ASSERT_GE(cases.size(), 70u);
  for (const Json& c : cases)
    expect_scores(c["prediction"], c["references"].get<std::vector<std::string>>(), c["scores"]);
}

TEST(Rouge, EqualsThePackageOnSixHundredRealPairs) {
  if (!std::filesystem::exists(kInstruct)) GTEST_SKIP() << "needs " << kInstruct;
  const Json expected = golden("rouge_scores.json");
  const auto predicted = json_lines(kInstruct + "selfinstruct_text-davinci-003_predictions.jsonl"),
             wanted = json_lines(kInstruct + "selfinstruct_user_oriented_252.jsonl"),
             tulu = json_lines(kInstruct + "tulu1_eval_instances.jsonl");
  ASSERT_EQ(expected["self_instruct"].size(), predicted.size());
  for (size_t i = 0; i < predicted.size(); ++i)
    expect_scores(predicted[i]["response"], {wanted[i]["instances"][0]["output"]},
                  expected["self_instruct"][i]);
  ASSERT_EQ(expected["tulu"].size(), 348u);
  for (size_t i = 0; i < 348; ++i)
    expect_scores(tulu[i]["completions"][0]["completion"], {tulu[i]["completions"][1]["completion"]},
                  expected["tulu"][i]);
}

TEST(Rouge, TakesAtLeastOneReference) {
  EXPECT_THAT(message_of([] { rouge("a", std::vector<std::string>{}, true); }), HasSubstr("no reference"));
}

TEST(Porter, StemsAsNltkDoes) {
  const Json words = golden("stems.json");
  ASSERT_GE(words.size(), 1500u);
  for (const Json& w : words) EXPECT_EQ(porter_stem(w[0].get<std::string>()), w[1]) << w[0];
}

TEST(Scores, ClassificationEqualsScikitLearn) {
  const Json cases = golden("scores.json");
  for (const Json& c : cases["classes"]) {
    const auto p = c["predictions"].get<std::vector<int64_t>>(), l = c["labels"].get<std::vector<int64_t>>();
    EXPECT_DOUBLE_EQ(accuracy(p, l), c["accuracy"].get<double>());
    EXPECT_DOUBLE_EQ(f1(p, l), c["f1"].get<double>());
    EXPECT_NEAR(matthews(p, l), c["matthews"].get<double>(), 1e-14);
  }
}

TEST(Scores, CorrelationsEqualSciPy) {
  const Json cases = golden("scores.json");
  for (const Json& c : cases["numbers"]) {
    const auto x = c["x"].get<std::vector<double>>(), y = c["y"].get<std::vector<double>>();
    EXPECT_NEAR(pearson(x, y), c["pearson"].get<double>(), 1e-12);
    EXPECT_NEAR(spearman(x, y), c["spearman"].get<double>(), 1e-12);
    EXPECT_NEAR(kendall(x, y), c["kendall"].get<double>(), 1e-12);
  }
}

TEST(Scores, WhatIsNotDefinedSaysSo) {
  const std::vector<double> constant{2, 2, 2}, other{1, 2, 3};
  EXPECT_TRUE(std::isnan(pearson(constant, other)));
  EXPECT_TRUE(std::isnan(spearman(other, constant)));
  EXPECT_TRUE(std::isnan(kendall(other, constant)));
  const std::vector<int64_t> zeros{0, 0};
  EXPECT_EQ(matthews(zeros, zeros), 0);
  EXPECT_EQ(f1(zeros, zeros), 0);
  EXPECT_THAT(message_of([] { accuracy(std::vector<int64_t>{1}, std::vector<int64_t>{}); }),
              HasSubstr("[accuracy] 1 predictions for 0 labels"));
  EXPECT_THAT(message_of([] { f1({}, {}); }), HasSubstr("[f1] there is nothing to measure"));
  EXPECT_THAT(message_of([&] {
                pearson(std::vector<double>{1, NAN, 2}, other);
              }),
              HasSubstr("[pearson] value 2 is nan"));
}

TEST(Scores, EachGlueTaskHasItsMeasures) {
  const std::vector<double> p{1, 0, 1, 1}, l{1, 0, 0, 1};
  const auto names = [&](const char* task) {
    std::vector<std::string> out;
    for (const NamedScore& s : glue_scores(task, p, l)) out.push_back(s.name);
    return out;
  };
  EXPECT_THAT(names("cola"), ElementsAre("matthews"));
  EXPECT_THAT(names("mrpc"), ElementsAre("accuracy", "f1", "mean"));
  EXPECT_THAT(names("qqp"), ElementsAre("accuracy", "f1", "mean"));
  EXPECT_THAT(names("stsb"), ElementsAre("pearson", "spearman", "mean"));
  for (const char* task : {"sst2", "mnli", "qnli", "rte", "wnli"})
    EXPECT_THAT(names(task), ElementsAre("accuracy")) << task;
  const auto mrpc = glue_scores("mrpc", p, l);
  EXPECT_DOUBLE_EQ(mrpc[0].value, 0.75);
  EXPECT_DOUBLE_EQ(mrpc[1].value, 0.8);
  EXPECT_DOUBLE_EQ(mrpc[2].value, 0.775);
  EXPECT_THAT(message_of([&] { glue_scores("snli", p, l); }),
              HasSubstr("\"snli\" is not a task; known are cola"));
  EXPECT_THAT(message_of([&] {
                glue_scores("rte", std::vector<double>{1, 0, 0.5, 1}, l);
              }),
              HasSubstr("[predictions] value 3 is 0.5, which is no class number"));
}

TEST(ExactMatch, IgnoresOnlyWhiteSpaceAround) {
  const ExactMatch m = exact_match({" yes\n", "Yes", "no no"}, {"yes", "yes", "no  no"});
  EXPECT_THAT(m.right, ElementsAre(true, false, false));
  EXPECT_EQ(m.count, 1);
}

}  // namespace
}  // namespace nibble::eval
