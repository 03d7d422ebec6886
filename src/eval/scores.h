// Measures of predictions against labels: accuracy, F1, Matthews, Pearson, Spearman, and which of them each
// GLUE task is reported with (Wang et al. 2019, table 1). Values equal scikit-learn's and SciPy's.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nibble::eval {

// All take as many predictions as labels, at least one. Errors: Error naming the measure.
double accuracy(std::span<const int64_t> predictions, std::span<const int64_t> labels);
// Of class `positive`; 0 when it is neither predicted nor there.
double f1(std::span<const int64_t> predictions, std::span<const int64_t> labels, int64_t positive = 1);
// Matthews' correlation coefficient for any number of classes (Gorodkin 2004); 0 where it is not defined
// (one class alone), as scikit-learn has it.
double matthews(std::span<const int64_t> predictions, std::span<const int64_t> labels);
// Correlations; NaN where one side is constant. Spearman gives equal values their mean rank.
double pearson(std::span<const double> x, std::span<const double> y);
double spearman(std::span<const double> x, std::span<const double> y);
// tau-b, which corrects for ties (Kendall 1945); NaN where one side is constant.
double kendall(std::span<const double> x, std::span<const double> y);

struct NamedScore {
  std::string name;  // "accuracy", "f1", "matthews", "pearson", "spearman", "mean"
  double value;
};
// What the task `task` (cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli) is reported with; where there are
// two, their mean comes last. Labels are class numbers, for stsb scores. Errors: UsageError for an unknown
// task; Error for a class that is not a whole number.
std::vector<NamedScore> glue_scores(std::string_view task, std::span<const double> predictions,
                                    std::span<const double> labels);

}  // namespace nibble::eval
