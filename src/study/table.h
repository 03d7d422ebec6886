// The results of a study as a table: a row per variant, a column per model, data set and measure, a mean per
// measure, the paired difference to the baseline, and the published figure where there is one.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "study/runner.h"
#include "study/statistics.h"

namespace nibble::study {

struct Column {
  std::string title;  // "LLaMA 260K perplexity"
  size_t measure = 0;
  bool mean = false;                         // over all models and data sets of the measure
  std::vector<std::optional<Summary>> rows;  // by variant; nothing where a cell failed or is missing
};

struct Difference {
  std::string variant, measure;
  std::string data;    // over this data set alone; empty: over all
  Summary difference;  // variant - baseline over pairs of the same model, data and seed
};

struct Point {  // for plots: one variant of one model, after one data set (empty without that axis)
  std::string variant, model, data, measure;
  double bits_per_weight = 0, weight_bytes = 0, value = 0;
};

struct Table {
  std::vector<std::string> variants;
  std::vector<Column> columns;
  std::vector<Difference> differences;
  std::vector<Point> points;
  std::vector<std::string> failures;  // "cell: message"
};

Table make_table(const Spec& spec, const StudyResults& results);

// "5.84" or "5.84 ± 0.02": four significant digits.
std::string show(const Summary& s);

// The forms a study is written in. Each is a whole file.
std::string as_text(const Spec& spec, const Table& table);  // for the terminal
std::string as_markdown(const Spec& spec, const Table& table);
std::string as_csv(const Table& table);
std::string as_latex(const Spec& spec, const Table& table);
Json as_json(const Spec& spec, const Table& table, const StudyResults& results);
// One page that needs nothing else: tables, and plots as SVG.
std::string as_html(const Spec& spec, const Table& table, const StudyResults& results);

}  // namespace nibble::study
