// Ratings: hand-computed games, the published judgements, and statistics of agreement.
#include "eval/elo.h"

#include <gmock/gmock.h>

#include <cmath>
#include <fstream>

#include "base/file.h"
#include "base/json.h"
#include "base/parallel.h"
#include "tests/eval/support.h"

namespace nibble::eval {
namespace {

using ::testing::HasSubstr;

TEST(Elo, OneGameMovesByHalfOfK) {
  const auto r = rate({{"a", "b", "1", 1}}, {.orders = 3});
  ASSERT_EQ(r.size(), 2u);
  EXPECT_EQ(r[0].name, "a");
  EXPECT_DOUBLE_EQ(r[0].elo, 1016);
  EXPECT_DOUBLE_EQ(r[1].elo, 984);
  EXPECT_DOUBLE_EQ(r[0].low, 1016);
  EXPECT_DOUBLE_EQ(r[0].error, 0);
  EXPECT_FALSE(r[0].bradley_terry.has_value());  // b never won: no maximum
  EXPECT_DOUBLE_EQ(rate({{"a", "b", "1", 0.5}}, {.orders = 1})[0].elo, 1000);
}

// Three games in all six orders, by the definition.
TEST(Elo, TheMeanOverOrdersIsThatOfAllPermutations) {
  const std::vector<Game> games{{"a", "b", "", 1}, {"b", "c", "", 1}, {"c", "a", "", 0.5}};
  std::vector<int> order{0, 1, 2};
  double sum[3] = {0, 0, 0};
  do {
    double rating[3] = {1000, 1000, 1000};
    for (const int g : order) {
      const size_t x = games[static_cast<size_t>(g)].first[0] - 'a',
                   y = games[static_cast<size_t>(g)].second[0] - 'a';
      const double expected = 1 / (1 + std::pow(10, (rating[y] - rating[x]) / 400));
      rating[x] += 32 * (games[static_cast<size_t>(g)].score - expected);
      rating[y] -= 32 * (games[static_cast<size_t>(g)].score - expected);
    }
    for (int i = 0; i < 3; ++i) sum[i] += rating[i] / 6;
  } while (std::next_permutation(order.begin(), order.end()));
  for (const Rating& r : rate(games, {.orders = 20000}))
    EXPECT_NEAR(r.elo, sum[r.name[0] - 'a'], 4 * r.error / 1.96 + 1e-9) << r.name;
}

TEST(Elo, TheSameForAnyNumberOfThreadsAndAnotherForAnotherSeed) {
  std::vector<Game> games;
  for (int i = 0; i < 60; ++i)
    games.push_back({std::string(1, static_cast<char>('a' + i % 4)),
                     std::string(1, static_cast<char>('a' + (i + 1 + i % 3) % 4)), std::to_string(i),
                     i % 5 == 0 ? 0.5 : (i * 7 % 3 > 0 ? 1.0 : 0.0)});
  set_threads(1);
  const auto one = rate(games, {.orders = 100});
  set_threads(4);
  const auto four = rate(games, {.orders = 100});
  const auto other = rate(games, {.orders = 100, .seed = 7});
  set_threads(0);
  for (size_t i = 0; i < one.size(); ++i) {
    EXPECT_EQ(one[i].elo, four[i].elo);
    EXPECT_EQ(one[i].low, four[i].low);
  }
  EXPECT_NE(one[0].elo, other[0].elo);
}

TEST(Elo, BradleyTerryOfTwoIsTheLogOdds) {
  std::vector<Game> games(10, {"a", "b", "", 1});
  games[0].score = games[1].score = 0;
  for (const Rating& r : rate(games, {.orders = 10})) {
    ASSERT_TRUE(r.bradley_terry.has_value());
    EXPECT_NEAR(*r.bradley_terry, 1000 + (r.name == "a" ? 200 : -200) * std::log10(4.0), 1e-6);
  }
}

// 2,000 orders of the reference's 4,467 judgements, computed independently, gave these means.
TEST(Elo, ThePublishedJudgementsGiveThePublishedRatings) {
  const std::string folder = kSharedData + "/elo/ratings-gpt4-vicuna";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "needs " << folder;
  const Games read = read_games({folder});
  EXPECT_EQ(read.games.size(), 4467u);
  EXPECT_EQ(read.invalid, 13);
  const std::pair<const char*, double> published[] = {
      {"answer-gpt4", 1375}, {"65b-guanaco", 1024}, {"30b-guanaco", 991}, {"answer-vicuna-13b", 970},
      {"answer-gpt35", 963}, {"13b-guanaco", 911},  {"answer-bard", 896}, {"7b-guanaco", 871}};
  const auto ratings = rate(read.games, {});
  ASSERT_EQ(ratings.size(), 8u);
  for (size_t i = 0; i < 8; ++i) {
    EXPECT_TRUE(ratings[i].name.starts_with(published[i].first)) << ratings[i].name;
    // Four deviations of the difference of two means, over 10,000 orders and over 2,000.
    EXPECT_NEAR(ratings[i].elo, published[i].second, 4 * std::sqrt(6) * ratings[i].error / 1.96)
        << ratings[i].name;
    EXPECT_LT(ratings[i].error, 1.5);
    EXPECT_LT(ratings[i].low, published[i].second);
    EXPECT_GT(ratings[i].high, published[i].second);
    EXPECT_TRUE(ratings[i].bradley_terry.has_value());
  }
  const OrderBias bias = order_bias(read.games);
  EXPECT_EQ(bias.first, 2512);
  EXPECT_EQ(bias.second, 1355);
  EXPECT_EQ(bias.ties, 600);
  EXPECT_EQ(bias.both_orders, bias.consistent + bias.first_twice + bias.second_twice + bias.half);
  EXPECT_GT(bias.both_orders, 2200);
}

TEST(Elo, OrderBiasTellsWhoStoodWhere) {
  const std::vector<Game> games{{"a", "b", "1", 1},   {"b", "a", "1", 0},  // a twice
                                {"a", "b", "2", 1},   {"b", "a", "2", 1},  // the first twice
                                {"a", "b", "3", 0},   {"b", "a", "3", 0},  // the second twice
                                {"a", "b", "4", 0.5}, {"b", "a", "4", 1},  // a tie and a win
                                {"a", "b", "5", 1}};
  const OrderBias b = order_bias(games);
  EXPECT_EQ(b.first, 5);
  EXPECT_EQ(b.second, 3);
  EXPECT_EQ(b.ties, 1);
  EXPECT_EQ(b.both_orders, 4);
  EXPECT_EQ(b.consistent, 1);
  EXPECT_EQ(b.first_twice, 1);
  EXPECT_EQ(b.second_twice, 1);
  EXPECT_EQ(b.half, 1);
}

TEST(Agreement, FleissKappaEqualsStatsmodels) {
  const std::string path = NIBBLE_SOURCE_DIR "/tests/goldens/measures/scores.json";
  const Json golden = parse_json(read_file(path), path);
  for (const Json& c : golden["kappa"])
    EXPECT_NEAR(fleiss_kappa(c["votes"].get<std::vector<std::vector<int64_t>>>()), c["kappa"].get<double>(),
                1e-12);
  EXPECT_TRUE(std::isnan(fleiss_kappa({{2, 0}, {2, 0}})));
  EXPECT_THAT(message_of([] {
                fleiss_kappa({{1, 0}});
              }),
              HasSubstr("an item needs at least two votes, got 1"));
  EXPECT_THAT(message_of([] {
                fleiss_kappa({{2, 0}, {2, 1}});
              }),
              HasSubstr("should have 2 votes in 2 categories"));
}

TEST(Agreement, OfTwoJudges) {
  const std::vector<Game> a{{"x", "y", "1", 1}, {"y", "z", "1", 1}, {"x", "z", "1", 1}};
  const std::vector<Game> b{{"y", "x", "1", 0}, {"z", "y", "1", 0}, {"z", "x", "1", 1}, {"x", "y", "2", 1}};
  const Agreement g = agreement(a, b, {.orders = 50});
  EXPECT_EQ(g.systems, 3);
  EXPECT_EQ(g.items, 3);
  EXPECT_EQ(g.raters, 2);
  EXPECT_EQ(g.left_out, 1);
  // x–y and y–z agree on the first in the alphabet, x–z does not: shares 5/6 and 1/6.
  EXPECT_NEAR(*g.kappa, (2.0 / 3 - 26.0 / 36) / (1 - 26.0 / 36), 1e-12);
  EXPECT_NEAR(agreement(a, a, {.orders = 50}).kendall, 1, 1e-12);
  EXPECT_THAT(message_of([&] {
                agreement(a, {{"p", "q", "", 1}}, {.orders = 5});
              }),
              HasSubstr("share 0 systems"));
}

class GameFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("nibble-games-" + std::to_string(getpid()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name) << text;
    return (folder_ / name).string();
  }
  std::string failure(const std::string& text) const {
    return message_of([&] { read_games({write("bad.jsonl", text)}); });
  }
  std::filesystem::path folder_;
};

TEST_F(GameFiles, BothLayoutsAreRead) {
  write("a-b-vs-a-gpt-4-reviewer-threeclass.jsonl",
        "{\"question_id\": 7, \"score\": 2}\n{\"question_id\": 8, \"score\": -1}\n");
  write("a-vs-a-b-gpt-4-reviewer-threeclass.jsonl", "{\"question_id\": 7, \"score\": 3}\n");
  const Games reference = read_games({folder_.string()});
  ASSERT_EQ(reference.games.size(), 2u);
  EXPECT_EQ(reference.invalid, 1);
  EXPECT_EQ(reference.games[0].first, "a-b");
  EXPECT_EQ(reference.games[0].second, "a");
  EXPECT_EQ(reference.games[0].item, "7");
  EXPECT_EQ(reference.games[0].score, 0);
  EXPECT_EQ(reference.games[1].second, "a-b");
  EXPECT_EQ(reference.games[1].score, 0.5);
  const Games arena = read_games(
      {write("x.json", R"x([{"model_a": "p", "model_b": "q", "winner": "model_b", "question_id": "k"},
    {"model_a": "p", "model_b": "q", "winner": "tie (bothbad)"}, {"model_a": "p", "model_b": "q", "winner": null}])x")});
  ASSERT_EQ(arena.games.size(), 2u);
  EXPECT_EQ(arena.invalid, 1);
  EXPECT_EQ(arena.games[0].score, 0);
  EXPECT_EQ(arena.games[1].score, 0.5);
}

TEST_F(GameFiles, SayWhatIsWrong) {
  EXPECT_THAT(failure(R"({"model_a": "p", "model_b": "q", "winner": "p"})"),
              HasSubstr("[bad.jsonl:1] \"winner\" is \"p\"; expected model_a, model_b or tie"));
  EXPECT_THAT(failure(R"({"model_a": "p", "model_b": "p", "winner": "tie"})"),
              HasSubstr("p is compared with itself"));
  EXPECT_THAT(failure(R"({"verdict": 1})"), HasSubstr("has neither \"winner\""));
  EXPECT_THAT(failure(R"({"score": 4})"), HasSubstr("\"score\" is 4; expected 1 (the first), 2"));
  EXPECT_THAT(failure(R"({"score": 1})"), HasSubstr("is not named <first>-vs-<second>-<judge>.jsonl"));
  EXPECT_THAT(failure(R"({"score": -1})"), HasSubstr("holds no judgement with a verdict"));
  EXPECT_THAT(message_of([] { rate({{"a", "b", "", 1}}, {.orders = 0}); }), HasSubstr("[--orders]"));
  EXPECT_THAT(message_of([] { rate({}, {}); }), HasSubstr("there is no game"));
}

}  // namespace
}  // namespace nibble::eval
