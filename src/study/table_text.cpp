// A study's table as text, Markdown, CSV, LaTeX and JSON.
#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "study/table.h"

namespace nibble::study {
namespace {

// Header and body as plain cells, the published column last.
std::vector<std::vector<std::string>> grid(const Spec& spec, const Table& table) {
  std::vector<std::vector<std::string>> rows(1);
  rows[0].push_back("");
  for (const Column& column : table.columns) rows[0].push_back(column.title);
  if (!spec.published.empty())
    rows[0].push_back("published: " +
                      (spec.published.column.empty() ? spec.published.source : spec.published.column));
  for (size_t v = 0; v < table.variants.size(); ++v) {
    std::vector<std::string> row = {table.variants[v]};
    for (const Column& column : table.columns) row.push_back(column.rows[v] ? show(*column.rows[v]) : "—");
    if (!spec.published.empty()) {
      const auto& known = spec.published.rows;
      const auto it = std::find_if(known.begin(), known.end(),
                                   [&](const auto& r) { return r.first == table.variants[v]; });
      row.push_back(it == known.end() ? "" : fmt::format("{}", it->second));
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<std::string> notes(const Spec& spec, const Table& table) {
  std::vector<std::string> all;
  for (const Measure& m : spec.measures)
    all.push_back(fmt::format("{}: {} is better", m.name, m.higher_is_better ? "higher" : "lower"));
  if (!spec.scale.empty()) all.push_back("these figures: " + spec.scale);
  if (!spec.published.empty())
    all.push_back(fmt::format("published figures: {}{}{}", spec.published.source,
                              spec.published.scale.empty() ? "" : ", obtained with ", spec.published.scale));
  // One line a variant and measure: its data sets, then all of them.
  std::string line;
  for (const Difference& d : table.differences) {
    line += line.empty() ? fmt::format("{} against {}, {}: ", d.variant, spec.baseline, d.measure)
                         : std::string(d.data.empty() ? ", all " : ", ");
    line += fmt::format("{}{}{}{}", d.data, d.data.empty() ? "" : " ", d.difference.mean >= 0 ? "+" : "",
                        show(d.difference));
    if (!d.data.empty()) continue;
    if (d.difference.count > 1) line += fmt::format(" ({} pairs)", d.difference.count);
    all.push_back(std::move(line));
    line.clear();
  }
  for (const std::string& failure : table.failures) all.push_back("failed: " + failure);
  return all;
}

std::string escaped(const std::string& text, std::string_view special, const char* before) {
  std::string out;
  for (const char c : text) {
    if (special.find(c) != std::string_view::npos) out += before;
    out += c;
  }
  return out;
}

size_t columns_of(const std::string& text) { return decode_utf8(text).size(); }

}  // namespace

std::string as_text(const Spec& spec, const Table& table) {
  const auto rows = grid(spec, table);
  std::vector<size_t> widths(rows[0].size(), 0);
  for (const auto& row : rows)
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], columns_of(row[c]));
  std::string text = spec.title + "\n\n";
  for (const auto& row : rows) {
    for (size_t c = 0; c < row.size(); ++c) {
      const std::string pad(widths[c] - columns_of(row[c]), ' ');
      text += c == 0 ? row[c] + pad : "  " + pad + row[c];
    }
    text += "\n";
  }
  text += "\n";
  for (const std::string& note : notes(spec, table)) text += note + "\n";
  return text;
}

std::string as_markdown(const Spec& spec, const Table& table) {
  std::string text = "# " + spec.title + "\n\n";
  if (!spec.about.empty()) text += spec.about + "\n\n";
  const auto rows = grid(spec, table);
  for (size_t r = 0; r < rows.size(); ++r) {
    text += "|";
    for (const std::string& cell : rows[r]) text += " " + escaped(cell, "|", "\\") + " |";
    text += "\n";
    if (r > 0) continue;
    text += "|";
    for (size_t c = 0; c < rows[0].size(); ++c) text += c == 0 ? "---|" : "--:|";
    text += "\n";
  }
  text += "\n";
  for (const std::string& note : notes(spec, table)) text += "- " + note + "\n";
  return text;
}

std::string as_csv(const Table& table) {
  const auto quoted = [](const std::string& text) {
    return text.find_first_of(",\"\n") == std::string::npos ? text : "\"" + escaped(text, "\"", "\"") + "\"";
  };
  std::string text = "variant,column,mean,half_width_95,values\n";
  for (size_t v = 0; v < table.variants.size(); ++v)
    for (const Column& column : table.columns)
      if (column.rows[v])
        text += fmt::format("{},{},{},{},{}\n", quoted(table.variants[v]), quoted(column.title),
                            column.rows[v]->mean, column.rows[v]->half, column.rows[v]->count);
  return text;
}

std::string as_latex(const Spec& spec, const Table& table) {
  const auto rows = grid(spec, table);
  const auto tex = [](std::string text) {
    text = escaped(text, "&%$#_{}", "\\");
    const auto swap = [&](std::string_view from, std::string_view to) {
      for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
        text.replace(at, from.size(), to);
    };
    swap("±", "$\\pm$");
    swap("—", "---");
    return text;
  };
  std::string text =
      "% " + spec.title + "\n\\begin{tabular}{l" + std::string(rows[0].size() - 1, 'r') + "}\n\\toprule\n";
  for (size_t r = 0; r < rows.size(); ++r) {
    for (size_t c = 0; c < rows[r].size(); ++c) text += (c > 0 ? " & " : "") + tex(rows[r][c]);
    text += r == 0 ? " \\\\\n\\midrule\n" : " \\\\\n";
  }
  return text + "\\bottomrule\n\\end{tabular}\n";
}

Json as_json(const Spec& spec, const Table& table, const StudyResults& results) {
  Json json = {{"study", spec.name},        {"title", spec.title},   {"scale", spec.scale},
               {"baseline", spec.baseline}, {"rows", Json::array()}, {"differences", Json::array()}};
  for (size_t v = 0; v < table.variants.size(); ++v) {
    Json row = {{"variant", table.variants[v]}, {"values", Json::object()}};
    for (const Column& column : table.columns)
      row["values"][column.title] = column.rows[v] ? Json{{"mean", column.rows[v]->mean},
                                                          {"half_width_95", column.rows[v]->half},
                                                          {"count", column.rows[v]->count}}
                                                   : Json();
    for (const auto& [variant, figure] : spec.published.rows)
      if (variant == table.variants[v]) row["published"] = figure;
    json["rows"].push_back(std::move(row));
  }
  for (const Difference& d : table.differences)
    json["differences"].push_back({{"variant", d.variant},
                                   {"measure", d.measure},
                                   {"data", d.data.empty() ? Json() : Json(d.data)},
                                   {"mean", d.difference.mean},
                                   {"half_width_95", d.difference.half},
                                   {"pairs", d.difference.count}});
  if (!spec.published.empty())
    json["published"] = {{"source", spec.published.source}, {"scale", spec.published.scale}};
  json["failures"] = table.failures;
  json["cells"] = {{"all", results.cells.size()},
                   {"reused", results.reused},
                   {"ran", results.ran},
                   {"failed", results.failed}};
  json["seconds"] = results.seconds;
  return json;
}

}  // namespace nibble::study
