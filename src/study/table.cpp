#include "study/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

namespace nibble::study {
namespace {

// The values of one variant by (model, data, seed), in the order of the cells.
struct Valued {
  const Cell* cell;
  double value;
};

std::vector<Valued> values_of(const StudyResults& results, size_t variant, size_t measure) {
  std::vector<Valued> values;
  for (const Cell& cell : results.cells)
    if (cell.variant == variant && cell.measure == measure)
      if (const CellResult* r = results.find(cell)) values.push_back({&cell, r->value});
  return values;
}

Column column_of(const Spec& spec, const StudyResults& results, size_t measure, size_t model, size_t data) {
  Column column;
  column.measure = measure;
  column.title = spec.models[model].name;
  if (!spec.data.empty()) column.title += " " + spec.data[data].name;
  if (spec.measures.size() > 1) column.title += " " + spec.measures[measure].name;
  for (size_t v = 0; v < spec.variants.size(); ++v) {
    std::vector<double> values;
    for (const auto& [cell, value] : values_of(results, v, measure))
      if (cell->model == model && cell->data == data && (cell->trains || values.empty()))
        values.push_back(value);
    column.rows.push_back(values.empty() ? std::nullopt : std::optional(summarize(values)));
  }
  return column;
}

// Over models and data sets, seed by seed; nothing where a cell is missing, which would compare unlike means.
Column mean_column(const Spec& spec, const StudyResults& results, size_t measure, size_t places) {
  Column column{spec.measures.size() > 1 ? "mean " + spec.measures[measure].name : "mean", measure, true, {}};
  const std::vector<int64_t> seeds = spec.trains ? spec.seeds : std::vector<int64_t>{0};
  for (size_t v = 0; v < spec.variants.size(); ++v) {
    std::vector<double> means;
    const std::vector<Valued> all = values_of(results, v, measure);
    const bool trains = std::any_of(all.begin(), all.end(), [](const Valued& x) { return x.cell->trains; });
    for (const int64_t seed : seeds) {
      double sum = 0;
      size_t count = 0;
      for (const auto& [cell, value] : all)
        if (cell->seed == seed) sum += value, ++count;
      if (count == places) means.push_back(sum / static_cast<double>(count));
    }
    const bool whole = means.size() == seeds.size();
    if (!trains && whole) means.resize(1);  // the same for every seed
    column.rows.push_back(whole ? std::optional(summarize(means)) : std::nullopt);
  }
  return column;
}

std::vector<Difference> differences_of(const Spec& spec, const StudyResults& results, size_t measure) {
  std::vector<Difference> all;
  size_t baseline = 0;
  while (spec.variants[baseline].name != spec.baseline) ++baseline;
  const int64_t first_seed = spec.trains ? spec.seeds.front() : 0;
  const std::vector<Valued> base = values_of(results, baseline, measure);
  for (size_t v = 0; v < spec.variants.size(); ++v) {
    if (v == baseline) continue;
    std::vector<double> pairs;
    std::vector<std::vector<double>> by_data(spec.data.size());
    for (const Valued& a : values_of(results, v, measure))
      for (const Valued& b : base) {
        if (a.cell->model != b.cell->model || a.cell->data != b.cell->data || a.cell->seed != b.cell->seed)
          continue;
        if (!a.cell->trains && !b.cell->trains && a.cell->seed != first_seed)
          continue;  // the same for every seed
        pairs.push_back(a.value - b.value);
        if (!by_data.empty()) by_data[a.cell->data].push_back(pairs.back());
      }
    const std::string &variant = spec.variants[v].name, &name = spec.measures[measure].name;
    if (by_data.size() > 1)
      for (size_t d = 0; d < by_data.size(); ++d)
        if (!by_data[d].empty()) all.push_back({variant, name, spec.data[d].name, summarize(by_data[d])});
    if (!pairs.empty()) all.push_back({variant, name, "", summarize(pairs)});
  }
  return all;
}

}  // namespace

std::string show(const Summary& s) {
  const auto digits = [](double value) {
    const double size = std::abs(value);
    return size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : 3;
  };
  const int n = digits(s.mean);
  return s.count < 2 ? fmt::format("{:.{}f}", s.mean, n)
                     : fmt::format("{:.{}f} ± {:.{}f}", s.mean, n, s.half, n);
}

Table make_table(const Spec& spec, const StudyResults& results) {
  Table table;
  for (const Named& variant : spec.variants) table.variants.push_back(variant.name);
  const size_t data = std::max<size_t>(spec.data.size(), 1), places = spec.models.size() * data;
  for (size_t e = 0; e < spec.measures.size(); ++e) {
    for (size_t m = 0; m < spec.models.size(); ++m)
      for (size_t d = 0; d < data; ++d) table.columns.push_back(column_of(spec, results, e, m, d));
    if (places > 1) table.columns.push_back(mean_column(spec, results, e, places));
    for (Difference& difference : differences_of(spec, results, e))
      table.differences.push_back(std::move(difference));
  }
  std::set<std::string> seen;  // a base that is not trained has one cell for all seeds
  for (const Cell& cell : results.cells) {
    const auto it = results.by_key.find(cell.key);
    if (it == results.by_key.end() || !seen.insert(cell.key).second) continue;
    const CellResult& r = it->second;
    if (!r.ok)
      table.failures.push_back(cell.label + ": " + r.error);
    else
      table.points.push_back({spec.variants[cell.variant].name, spec.models[cell.model].name,
                              spec.data.empty() ? "" : spec.data[cell.data].name,
                              spec.measures[cell.measure].name, r.bits_per_weight, r.weight_bytes, r.value});
  }
  return table;
}

}  // namespace nibble::study
