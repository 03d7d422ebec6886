// The judge: verdicts, both orders, retries, and a log from which a stopped run goes on.
#include "eval/judge.h"

#include <gmock/gmock.h>

#include <fstream>

#include "base/file.h"
#include "base/process.h"
#include "eval/elo.h"
#include "tests/eval/support.h"

namespace nibble::eval {
namespace {

using ::testing::HasSubstr;

TEST(Verdict, IsTheOnlyNumberOfTheLastLine) {
  for (const char* text : {"1", "Both fine.\n2\n", "x\n\n **2** \n\n", "Verdict: [[2]]", "The answer is 2."})
    EXPECT_EQ(read_verdict(text), std::string(text) == "1" ? 1 : 2) << text;
  EXPECT_EQ(read_verdict("1\n3"), 3);
  for (const char* text :
       {"", "\n", "none", "4", "0", "12", "1 or 2", "answer 1 beats answer 2", "1\nI cannot say.",
        "There is 1 thing to say about it, which is that both of them are very long indeed.",
        "99999999999999999999999999"})
    EXPECT_EQ(read_verdict(text), std::nullopt) << text;
}

TEST(Comparisons, AreAllPairsInBothOrders) {
  const auto all = comparisons(2, 3);
  EXPECT_EQ(all.size(), 12u);
  EXPECT_EQ(all[0].first, all[1].second);
  EXPECT_EQ(all[0].second, all[1].first);
}

class JudgeLog : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = (std::filesystem::temp_directory_path() / ("nibble-judge-" + std::to_string(getpid()) + ".jsonl"))
                .string();
    std::filesystem::remove(path_);
    options_.sleep = [this](double seconds) { slept_.push_back(seconds); };
  }
  void TearDown() override { std::filesystem::remove(path_); }

  // A judge that prefers the longer answer; `reply` may say something else at a call.
  JudgeResult run(const std::function<std::optional<JudgeReply>(int call)>& reply = {}) {
    return judge(
        questions_, systems_, "fake",
        [&](const Json& messages) -> JudgeReply {
          const int call = calls_++;
          if (reply)
            if (const auto r = reply(call)) return *r;
          const std::string text = messages[1]["content"];
          const size_t long_at = text.find("loooong"), short_at = text.find("short");
          return {"Because.\n" + std::string(long_at < short_at ? "1" : "2"), "", false};
        },
        path_, options_);
  }
  std::vector<Json> lines() const {
    std::vector<Json> out;
    std::istringstream text(read_file(path_));
    for (std::string line; std::getline(text, line);) out.push_back(parse_json(line, path_));
    return out;
  }

  std::vector<JudgeQuestion> questions_{{"q1", "One?"}, {"q2", "Two?"}};
  std::vector<JudgedSystem> systems_{{"a", {"loooong 1", "loooong 2"}}, {"b", {"short 1", "short 2"}}};
  JudgeOptions options_;
  std::string path_;
  std::vector<double> slept_;
  int calls_ = 0;
};

TEST_F(JudgeLog, BothOrdersAreAskedAndEloReadsTheLog) {
  const JudgeResult r = run();
  EXPECT_EQ(calls_, 4);
  EXPECT_EQ(r.first, 2);
  EXPECT_EQ(r.second, 2);
  const Games games = read_games({path_});
  ASSERT_EQ(games.games.size(), 4u);
  EXPECT_EQ(games.games[0].first, "a");
  EXPECT_EQ(games.games[0].score, 1);
  EXPECT_EQ(games.games[1].first, "b");
  EXPECT_EQ(games.games[1].score, 0);
  EXPECT_EQ(order_bias(games.games).consistent, 2);
  EXPECT_EQ(rate(games.games, {.orders = 10})[0].name, "a");
}

TEST_F(JudgeLog, NonsenseIsAskedAgainThenCounted) {
  const JudgeResult r = run([](int call) -> std::optional<JudgeReply> {
    if (call < 4) return JudgeReply{"I would rather not say.", "", false};  // all attempts at the first
    if (call == 4) return JudgeReply{"7", "", false};  // the second is right at its second attempt
    return std::nullopt;
  });
  EXPECT_EQ(r.nonsense, 1);
  EXPECT_EQ(r.first + r.second, 3);
  EXPECT_EQ(calls_, 4 + 2 + 2);
  EXPECT_TRUE(slept_.empty());
  EXPECT_TRUE(lines()[0]["winner"].is_null());
  EXPECT_EQ(lines()[0]["answer"], "I would rather not say.");
  EXPECT_EQ(lines()[1]["attempts"], 2);
  EXPECT_EQ(read_games({path_}).invalid, 1);
}

TEST_F(JudgeLog, WhatGotNoAnswerIsAskedByTheNextRun) {
  JudgeResult r = run([](int call) -> std::optional<JudgeReply> {
    if (call < 4) return JudgeReply{std::nullopt, "no answer: timeout", false};
    return std::nullopt;
  });
  EXPECT_EQ(r.unanswered, 1);
  EXPECT_EQ(r.first + r.second, 3);
  EXPECT_THAT(slept_, ::testing::ElementsAre(1, 2, 4));
  EXPECT_EQ(lines()[0]["failure"], "no answer: timeout");
  calls_ = 0;
  r = run();
  EXPECT_EQ(calls_, 1);
  EXPECT_EQ(r.from_log, 3);
  EXPECT_EQ(r.unanswered, 0);
  EXPECT_EQ(r.first + r.second, 4);
  EXPECT_EQ(lines().size(), 4u);
  calls_ = 0;
  run();
  EXPECT_EQ(calls_, 0);
}

TEST_F(JudgeLog, AKilledRunLosesAtMostTheLineItWrote) {
  run();
  const std::string whole = read_file(path_);
  std::ofstream(path_, std::ios::binary) << whole.substr(0, whole.size() - 10);
  calls_ = 0;
  const JudgeResult r = run();
  EXPECT_EQ(calls_, 1);
  EXPECT_EQ(r.from_log, 3);
  EXPECT_EQ(read_file(path_), whole);
}

TEST_F(JudgeLog, AJudgeThatNeverAnswersEndsTheRunAndKeepsTheLog) {
  options_.most_failures = 2;
  options_.retries = 0;
  EXPECT_THAT(message_of([&] {
                run([](int) { return JudgeReply{std::nullopt, "connection refused", false}; });
              }),
              HasSubstr("2 comparisons in a row got no answer, the last because of: connection refused"));
  EXPECT_EQ(lines().size(), 2u);
  calls_ = 0;
  EXPECT_THAT(message_of([&] {
                run([](int) { return JudgeReply{std::nullopt, "HTTP 401: wrong key", true}; });
              }),
              HasSubstr("[judge] HTTP 401: wrong key; 0 of 4 comparisons"));
  EXPECT_EQ(calls_, 1);
}

TEST_F(JudgeLog, CtrlCStopsBetweenQuestions) {
  const auto stop = [](int call) -> std::optional<JudgeReply> {
    if (call == 1) set_interrupted(true);
    return std::nullopt;
  };
  EXPECT_THROW(run(stop), Interrupted);
  set_interrupted(false);
  EXPECT_EQ(lines().size(), 2u);
  calls_ = 0;
  EXPECT_EQ(run().from_log, 2);
}

TEST_F(JudgeLog, SaysWhatIsWrong) {
  std::ofstream(path_) << "no json\n{}\n";
  EXPECT_THAT(message_of([&] { run(); }), HasSubstr("is not JSON; is this a log of judgements?"));
  std::ofstream(path_) << "{\"model_a\": 1}\n";
  EXPECT_THAT(message_of([&] { run(); }), HasSubstr("question_id"));
  systems_[1].answers.pop_back();
  EXPECT_THAT(message_of([&] { run(); }), HasSubstr("[b] has 1 answers for 2 questions"));
}

}  // namespace
}  // namespace nibble::eval
