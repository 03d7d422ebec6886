#include "eval/scores.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "base/error.h"

namespace nibble::eval {
namespace {

template <class T>
void check(const char* name, std::span<const T> predictions, std::span<const T> labels) {
  require(predictions.size() == labels.size(), name, "{} predictions for {} labels", predictions.size(),
          labels.size());
  require(!labels.empty(), name, "there is nothing to measure");
}

// 1-based ranks; equal values share the mean of theirs.
std::vector<double> ranks(std::span<const double> values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  std::vector<double> out(values.size());
  for (size_t begin = 0, end; begin < order.size(); begin = end) {
    for (end = begin + 1; end < order.size() && values[order[end]] == values[order[begin]];) ++end;
    for (size_t i = begin; i < end; ++i) out[order[i]] = static_cast<double>(begin + end + 1) / 2;
  }
  return out;
}

void check_finite(const char* name, std::span<const double> values) {
  for (size_t i = 0; i < values.size(); ++i)
    require(std::isfinite(values[i]), name, "value {} is {}", i + 1, values[i]);
}

}  // namespace

double accuracy(std::span<const int64_t> predictions, std::span<const int64_t> labels) {
  check("accuracy", predictions, labels);
  int64_t right = 0;
  for (size_t i = 0; i < labels.size(); ++i) right += predictions[i] == labels[i];
  return static_cast<double>(right) / static_cast<double>(labels.size());
}

double f1(std::span<const int64_t> predictions, std::span<const int64_t> labels, int64_t positive) {
  check("f1", predictions, labels);
  int64_t both = 0, predicted = 0, there = 0;
  for (size_t i = 0; i < labels.size(); ++i) {
    both += predictions[i] == positive && labels[i] == positive;
    predicted += predictions[i] == positive;
    there += labels[i] == positive;
  }
  return predicted + there == 0 ? 0 : 2 * static_cast<double>(both) / static_cast<double>(predicted + there);
}

double matthews(std::span<const int64_t> predictions, std::span<const int64_t> labels) {
  check("matthews", predictions, labels);
  std::map<int64_t, std::pair<double, double>> counts;  // class: times predicted, times there
  double right = 0;
  for (size_t i = 0; i < labels.size(); ++i) {
    counts[predictions[i]].first += 1;
    counts[labels[i]].second += 1;
    right += predictions[i] == labels[i];
  }
  const auto n = static_cast<double>(labels.size());
  double product = 0, predicted = 0, there = 0;
  for (const auto& [label, count] : counts) {
    product += count.first * count.second;
    predicted += count.first * count.first;
    there += count.second * count.second;
  }
  const double below = (n * n - predicted) * (n * n - there);
  return below == 0 ? 0 : (right * n - product) / std::sqrt(below);
}

double pearson(std::span<const double> x, std::span<const double> y) {
  check("pearson", x, y);
  check_finite("pearson", x);
  check_finite("pearson", y);
  const auto constant = [](std::span<const double> v) {
    return std::all_of(v.begin(), v.end(), [&](double value) { return value == v[0]; });
  };
  if (constant(x) || constant(y)) return std::numeric_limits<double>::quiet_NaN();
  const auto n = static_cast<double>(x.size());
  const double mean_x = std::accumulate(x.begin(), x.end(), 0.0) / n,
               mean_y = std::accumulate(y.begin(), y.end(), 0.0) / n;
  double xx = 0, yy = 0, xy = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    xx += (x[i] - mean_x) * (x[i] - mean_x);
    yy += (y[i] - mean_y) * (y[i] - mean_y);
    xy += (x[i] - mean_x) * (y[i] - mean_y);
  }
  return std::clamp(xy / (std::sqrt(xx) * std::sqrt(yy)), -1.0, 1.0);
}

double spearman(std::span<const double> x, std::span<const double> y) {
  check("spearman", x, y);
  check_finite("spearman", x);
  check_finite("spearman", y);
  return pearson(ranks(x), ranks(y));
}

double kendall(std::span<const double> x, std::span<const double> y) {
  check("kendall", x, y);
  check_finite("kendall", x);
  check_finite("kendall", y);
  int64_t sum = 0, pairs_x = 0, pairs_y = 0;  // pairs that are not tied in x, in y
  for (size_t i = 0; i < x.size(); ++i)
    for (size_t j = 0; j < i; ++j) {
      const int sign_x = (x[i] > x[j]) - (x[i] < x[j]), sign_y = (y[i] > y[j]) - (y[i] < y[j]);
      sum += sign_x * sign_y;
      pairs_x += sign_x != 0;
      pairs_y += sign_y != 0;
    }
  if (pairs_x == 0 || pairs_y == 0) return std::numeric_limits<double>::quiet_NaN();
  return static_cast<double>(sum) / std::sqrt(static_cast<double>(pairs_x)) /
         std::sqrt(static_cast<double>(pairs_y));
}

std::vector<NamedScore> glue_scores(std::string_view task, std::span<const double> predictions,
                                    std::span<const double> labels) {
  static constexpr std::string_view kTasks[] = {"cola", "sst2", "mrpc", "stsb", "qqp",
                                                "mnli", "qnli", "rte",  "wnli"};
  if (std::find(std::begin(kTasks), std::end(kTasks), task) == std::end(kTasks))
    throw UsageError("glue",
                     fmt::format("\"{}\" is not a task; known are {}", task, fmt::join(kTasks, ", ")));
  std::vector<NamedScore> scores;
  if (task == "stsb") {
    scores = {{"pearson", pearson(predictions, labels)}, {"spearman", spearman(predictions, labels)}};
  } else {
    const auto classes = [&](std::span<const double> values, const char* what) {
      std::vector<int64_t> out;
      for (const double v : values) {
        require(std::abs(v) < 1e15 && v == std::floor(v), what, "value {} is {}, which is no class number",
                out.size() + 1, v);
        out.push_back(static_cast<int64_t>(v));
      }
      return out;
    };
    const auto p = classes(predictions, "predictions"), l = classes(labels, "labels");
    if (task == "cola")
      scores = {{"matthews", matthews(p, l)}};
    else
      scores = {{"accuracy", accuracy(p, l)}};
    if (task == "mrpc" || task == "qqp") scores.push_back({"f1", f1(p, l)});
  }
  if (scores.size() == 2) scores.push_back({"mean", (scores[0].value + scores[1].value) / 2});
  return scores;
}

}  // namespace nibble::eval
