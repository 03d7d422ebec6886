#include "study/table.h"

#include <gmock/gmock.h>

#include <cmath>

namespace nibble::study {
namespace {

using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;

TEST(StudyStatistics, MeanAndIntervalAreStudents) {
  // scipy.stats.t.interval(0.95, 4, loc=3, scale=sem([1,2,3,4,5])): 1.036757 … 4.963243
  const Summary s = summarize({1, 2, 3, 4, 5});
  EXPECT_DOUBLE_EQ(s.mean, 3);
  EXPECT_NEAR(s.half, 1.963243, 1e-4);
  EXPECT_EQ(summarize({7}).half, 0);
  EXPECT_NEAR(t_quantile(40), 2.0211, 2e-4);
  EXPECT_NEAR(t_quantile(1000), 1.9623, 1e-4);
}

// Two models, two variants, three seeds; variant b is above a by 0.5 on average.
struct Example {
  Spec spec;
  StudyResults results;
  Example() {
    spec.name = "s";
    spec.title = "A & B <test>";
    spec.models = {{"m1", {}}, {"m2", {}}};
    spec.variants = {{"a", {}}, {"b_1", {}}};
    spec.measures = {{"score", "ppl", false, {}}};
    spec.trains = true;
    spec.seeds = {1, 2, 3};
    spec.baseline = "a";
    spec.published = {"a paper", "big models", "table 9", {{"b_1", 27.41}}};
    for (size_t m = 0; m < 2; ++m)
      for (size_t v = 0; v < 2; ++v)
        for (int64_t seed = 1; seed <= 3; ++seed) {
          const std::string key = std::to_string(m) + std::to_string(v) + std::to_string(seed);
          results.cells.push_back({m, 0, v, 0, seed, true, key, "cell " + key});
          CellResult r;
          r.ok = true;
          r.bits_per_weight = v == 0 ? 16 : 4;
          r.weight_bytes = 1e6;
          r.value = static_cast<double>(10 * (m + 1)) + static_cast<double>(seed) +
                    (v == 1 ? 0.5 + 0.1 * static_cast<double>(seed - 2) : 0);
          results.by_key[key] = r;
        }
  }
};

TEST(StudyTable, MeansOverSeedsAndPairedDifferences) {
  const Example e;
  const Table table = make_table(e.spec, e.results);
  ASSERT_EQ(table.columns.size(), 3u);
  EXPECT_EQ(table.columns[2].title, "mean");
  EXPECT_DOUBLE_EQ(table.columns[0].rows[0]->mean, 12);
  EXPECT_DOUBLE_EQ(table.columns[2].rows[0]->mean, 17);
  EXPECT_DOUBLE_EQ(table.columns[2].rows[1]->mean, 17.5);
  ASSERT_EQ(table.differences.size(), 1u);
  EXPECT_NEAR(table.differences[0].difference.mean, 0.5, 1e-12);
  EXPECT_EQ(table.differences[0].difference.count, 6);
  EXPECT_NEAR(table.differences[0].difference.half, t_quantile(5) * std::sqrt(0.04 / 5 / 6), 1e-9);
}

// Before training there is one figure for all seeds, and one pair.
TEST(StudyTable, DifferencesOfEachDataSetAndOfAll) {
  Example e;
  e.spec.models.pop_back();
  e.spec.data = {{"before", {}}, {"after", {}}};
  e.results.cells.clear();
  for (size_t d = 0; d < 2; ++d)
    for (size_t v = 0; v < 2; ++v)
      for (int64_t seed = 1; seed <= 3; ++seed) {
        const std::string after = "0" + std::to_string(v) + std::to_string(seed),
                          key = d == 0 ? "before" + std::to_string(v) : after;
        e.results.cells.push_back({0, d, v, 0, seed, d == 1, key, "cell"});
        if (d == 0) {
          e.results.by_key[key] = e.results.by_key[after];
          e.results.by_key[key].value = 4 * static_cast<double>(v);
        }
      }
  const Table table = make_table(e.spec, e.results);
  ASSERT_EQ(table.differences.size(), 3u);
  EXPECT_EQ(table.differences[0].data, "before");
  EXPECT_EQ(table.differences[0].difference.count, 1);
  EXPECT_EQ(table.differences[1].data, "after");
  EXPECT_EQ(table.differences[1].difference.count, 3);
  EXPECT_NEAR(table.differences[1].difference.mean, 0.5, 1e-12);
  EXPECT_EQ(table.differences[2].data, "");
  EXPECT_EQ(table.differences[2].difference.count, 4);
  EXPECT_THAT(
      as_text(e.spec, table),
      ContainsRegex("b_1 against a, score: before \\+4.000, after \\+0.500 ± .*, all \\+.* \\(4 pairs\\)"));
}

TEST(StudyTable, AFailedCellLeavesItsMeanOutAndIsNamed) {
  Example e;
  e.results.by_key["011"] = {};
  e.results.by_key["011"].error = "boom";
  const Table table = make_table(e.spec, e.results);
  EXPECT_EQ(table.columns[0].rows[1]->count, 2);
  EXPECT_FALSE(table.columns[2].rows[1].has_value());
  EXPECT_THAT(table.failures.at(0), HasSubstr("boom"));
  EXPECT_THAT(as_text(e.spec, table), HasSubstr("failed: cell 011: boom"));
}

TEST(StudyTable, EveryFormEscapesItsOwnWay) {
  const Example e;
  const Table table = make_table(e.spec, e.results);
  EXPECT_THAT(as_latex(e.spec, table), HasSubstr("b\\_1"));
  EXPECT_THAT(as_csv(table), HasSubstr("b_1,mean,17.5,"));
  EXPECT_THAT(as_markdown(e.spec, table), HasSubstr("| b_1 |"));
  const std::string page = as_html(e.spec, table, e.results);
  EXPECT_THAT(page, HasSubstr("A &amp; B &lt;test&gt;"));
  EXPECT_THAT(page, HasSubstr("27.41"));
  EXPECT_THAT(page, HasSubstr("obtained with big models"));
  EXPECT_THAT(page, Not(HasSubstr("nan")));
  EXPECT_THAT(page, Not(HasSubstr("http")));
  EXPECT_EQ(as_json(e.spec, table, e.results)["rows"][1]["published"], 27.41);
}

}  // namespace
}  // namespace nibble::study
