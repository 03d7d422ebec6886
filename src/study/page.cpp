// The page of a study: one HTML file without scripts or outside references, plots drawn as SVG.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "base/text.h"
#include "base/ticks.h"
#include "study/table.h"

namespace nibble::study {
namespace {

constexpr const char* kColours[] = {"#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e",
                                    "#8c564b", "#e377c2", "#17becf", "#7f7f7f", "#bcbd22"};

constexpr const char* kStyle =
    R"(body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#1b1b1b;background:#fff}
table{border-collapse:collapse;margin:1rem 0;display:block;overflow-x:auto}th,td{padding:.3rem .8rem;border-bottom:1px solid #ddd;text-align:right}
th:first-child,td:first-child{text-align:left}thead th{border-bottom:2px solid #888}td.best{font-weight:700}td.published{color:#777}
svg{max-width:100%;height:auto}figure{margin:1.5rem 0}figcaption,.note{color:#555;font-size:.9rem}li.failed{color:#b00020}
@media(prefers-color-scheme:dark){body{background:#161616;color:#eee}th,td{border-color:#444}figcaption,.note,td.published{color:#aaa}svg text{fill:#ccc}}
)";

std::string html(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else if (static_cast<unsigned char>(c) >= 0x20 || c == '\n')
      out += c;
  }
  return out;
}

struct Axis {
  double low = 0, high = 1, from = 0, to = 1;  // values; pixels
  bool log = false;
  double at(double value) const {
    const auto f = [this](double x) { return log ? std::log(x) : x; };
    return from + (f(value) - f(low)) / (f(high) - f(low)) * (to - from);
  }
  // Round numbers; on a logarithmic axis 1, 2 and 5 times the powers of ten.
  std::vector<double> ticks() const {
    std::vector<double> all;
    if (log) {
      for (double power = std::pow(10.0, std::floor(std::log10(low))); power <= high; power *= 10)
        for (const double factor : {1.0, 2.0, 5.0})
          if (power * factor >= low && power * factor <= high) all.push_back(power * factor);
      return all;
    }
    const double step = tick_distance(high - low, 6);
    for (double tick = std::ceil(low / step) * step; tick <= high; tick += step)
      all.push_back(std::abs(tick) < step / 2 ? 0 : tick);
    return all;
  }
};

Axis axis_over(std::vector<double> values, double from, double to) {
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  Axis axis{*low, *high, from, to, *low > 0 && *high / *low > 8};
  const double room = axis.log ? std::pow(*high / *low, 0.06)
                               : std::max((*high - *low) * 0.08, std::abs(*high) * 1e-3 + 1e-9);
  axis.low = axis.log ? *low / room : *low - room;
  axis.high = axis.log ? *high * room : *high + room;
  return axis;
}

std::string figure_of(const std::string& body, int width, int height, const std::string& caption) {
  return fmt::format(
      "<figure><svg viewBox=\"0 0 {} {}\" width=\"{}\" role=\"img\" aria-label=\"{}\" "
      "font-family=\"system-ui,sans-serif\" font-size=\"12\">{}</svg><figcaption>{}</figcaption></figure>\n",
      width, height, width, html(caption), body, html(caption));
}

constexpr int kWidth = 760, kHeight = 380, kLeft = 70, kRight = 200, kTop = 14, kBottom = 44;

std::string frame(const Axis& x, const Axis& y, const std::string& x_title) {
  std::string svg;
  for (const double tick : y.ticks())
    svg += fmt::format(
        "<line x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#8884\"/><text x=\"{}\" y=\"{:.1f}\" "
        "text-anchor=\"end\">{:.4g}</text>",
        kLeft, kWidth - kRight, y.at(tick), y.at(tick), kLeft - 6, y.at(tick) + 4, tick);
  for (const double tick : x.ticks())
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{:.3g}</text>", x.at(tick),
                       kHeight - kBottom + 18, tick);
  return svg + fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                           (kLeft + kWidth - kRight) / 2, kHeight - 6, html(x_title));
}

std::string legend(const std::vector<std::string>& names) {
  std::string svg;
  for (size_t i = 0; i < names.size(); ++i)
    svg += fmt::format(
        "<rect x=\"{}\" y=\"{}\" width=\"10\" height=\"10\" fill=\"{}\"/><text x=\"{}\" y=\"{}\">{}</text>",
        kWidth - kRight + 14, kTop + 18 * i, kColours[i % std::size(kColours)], kWidth - kRight + 30,
        kTop + 18 * i + 9, html(names[i]));
  return svg;
}

// Quality against the memory that the weights take, a colour per variant; on one data set.
std::string scatter(const Table& table, const Measure& measure, const std::string& data, bool total) {
  std::vector<double> xs, ys;
  for (const Point& p : table.points)
    if (p.measure == measure.name && p.data == data)
      xs.push_back(total ? p.weight_bytes / 1e6 : p.bits_per_weight), ys.push_back(p.value);
  if (xs.size() < 2) return "";
  const Axis x = axis_over(xs, kLeft, kWidth - kRight), y = axis_over(ys, kHeight - kBottom, kTop);
  std::string svg = frame(x, y, total ? "weights, MB" : "bits per weight, embeddings and scales included");
  for (const Point& p : table.points) {
    if (p.measure != measure.name || p.data != data) continue;
    const auto variant = static_cast<size_t>(
        std::find(table.variants.begin(), table.variants.end(), p.variant) - table.variants.begin());
    svg += fmt::format(
        "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4.5\" fill=\"{}\" fill-opacity=\"0.85\"><title>{} · {}: "
        "{:.4g}</title></circle>",
        x.at(total ? p.weight_bytes / 1e6 : p.bits_per_weight), y.at(p.value),
        kColours[variant % std::size(kColours)], html(p.model), html(p.variant), p.value);
  }
  return figure_of(
      svg + legend(table.variants), kWidth, kHeight,
      fmt::format("{}{} against {} ({} is better), a point per model and seed", measure.name,
                  data.empty() ? "" : ", " + data, total ? "memory of the weights" : "bits per weight",
                  measure.higher_is_better ? "higher" : "lower"));
}

// Training loss of every variant: the first model, data set and seed.
std::string losses(const Spec& spec, const StudyResults& results) {
  std::vector<std::pair<std::string, const std::vector<double>*>> curves;
  for (const Cell& cell : results.cells) {
    const CellResult* r = results.find(cell);
    if (r == nullptr || r->losses.size() < 2 || cell.model != 0 || cell.data != 0 || cell.measure != 0 ||
        cell.seed != spec.seeds.front())
      continue;
    curves.emplace_back(spec.variants[cell.variant].name, &r->losses);
  }
  if (curves.empty()) return "";
  std::vector<double> all;
  size_t longest = 0;
  for (const auto& [name, curve] : curves) {
    all.insert(all.end(), curve->begin(), curve->end());
    longest = std::max(longest, curve->size());
  }
  const Axis x{1, static_cast<double>(longest), kLeft, kWidth - kRight},
      y = axis_over(all, kHeight - kBottom, kTop);
  std::string svg = frame(x, y, "step");
  std::vector<std::string> names;
  for (size_t c = 0; c < curves.size(); ++c) {
    names.push_back(curves[c].first);
    std::string points;
    for (size_t i = 0; i < curves[c].second->size(); ++i)
      points += fmt::format("{:.1f},{:.1f} ", x.at(static_cast<double>(i + 1)), y.at((*curves[c].second)[i]));
    svg += fmt::format("<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"1.6\" points=\"{}\"/>",
                       kColours[c % std::size(kColours)], points);
  }
  return figure_of(svg + legend(names), kWidth, kHeight,
                   fmt::format("training loss on {}", spec.models.front().name));
}

std::string main_table(const Spec& spec, const Table& table) {
  std::string text = "<table><thead><tr><th></th>";
  for (const Column& column : table.columns) text += "<th>" + html(column.title) + "</th>";
  if (!spec.published.empty())
    text += "<th>published" + (spec.published.column.empty() ? "" : "<br>" + html(spec.published.column)) +
            "</th>";
  text += "</tr></thead><tbody>\n";
  const auto better = [&](const Column& column, double a, double b) {
    return spec.measures[column.measure].higher_is_better ? a > b : a < b;
  };
  for (size_t v = 0; v < table.variants.size(); ++v) {
    text += "<tr><td>" + html(table.variants[v]) + "</td>";
    for (const Column& column : table.columns) {
      bool best = column.rows[v].has_value();
      for (const auto& other : column.rows)
        if (best && other && better(column, other->mean, column.rows[v]->mean)) best = false;
      text += fmt::format("<td{}>{}</td>", best ? " class=\"best\"" : "",
                          column.rows[v] ? show(*column.rows[v]) : "—");
    }
    if (!spec.published.empty()) {
      std::string figure;
      for (const auto& [variant, value] : spec.published.rows)
        if (variant == table.variants[v]) figure = fmt::format("{}", value);
      text += "<td class=\"published\">" + figure + "</td>";
    }
    text += "</tr>\n";
  }
  return text + "</tbody></table>\n";
}

std::string difference_table(const Spec& spec, const Table& table) {
  if (table.differences.empty()) return "";
  std::string text = fmt::format(
      "<h2>Against {}</h2>\n<table><thead><tr><th></th><th>measure</th><th>data</th><th>difference, 95 % "
      "interval</th><th>pairs</th></tr></thead><tbody>\n",
      html(spec.baseline));
  for (const Difference& d : table.differences)
    text += fmt::format("<tr><td>{}</td><td>{}</td><td>{}</td><td>{}{}</td><td>{}</td></tr>\n",
                        html(d.variant), html(d.measure), d.data.empty() ? "all" : html(d.data),
                        d.difference.mean >= 0 ? "+" : "", show(d.difference), d.difference.count);
  return text + "</tbody></table>\n";
}

}  // namespace

std::string as_html(const Spec& spec, const Table& table, const StudyResults& results) {
  std::string page = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width,initial-scale=1\"><title>{}</title><style>{}</style></"
      "head>\n<body><h1>{}</h1>\n",
      html(spec.title), kStyle, html(spec.title));
  if (!spec.about.empty()) page += "<p>" + html(spec.about) + "</p>\n";
  page += main_table(spec, table);
  for (const Measure& m : spec.measures)
    page += fmt::format("<p class=\"note\">{}: {} is better.</p>\n", html(m.name),
                        m.higher_is_better ? "higher" : "lower");
  if (!spec.scale.empty()) page += "<p class=\"note\">These figures: " + html(spec.scale) + ".</p>\n";
  if (!spec.published.empty())
    page += fmt::format("<p class=\"note\">Published: {}{}.</p>\n", html(spec.published.source),
                        spec.published.scale.empty() ? "" : html(", obtained with " + spec.published.scale));
  page += difference_table(spec, table) + "<h2>Plots</h2>\n";
  for (const Measure& m : spec.measures) {
    if (spec.data.empty()) page += scatter(table, m, "", spec.models.size() > 1);
    for (const Named& d : spec.data) page += scatter(table, m, d.name, spec.models.size() > 1);
  }
  page += losses(spec, results);
  if (!table.failures.empty()) {
    page += "<h2>Failed</h2><ul>\n";
    for (const std::string& failure : table.failures)
      page += "<li class=\"failed\">" + html(failure) + "</li>\n";
    page += "</ul>\n";
  }
  return page + fmt::format("<p class=\"note\">{} results, {} of them new, in {}.</p>\n</body></html>\n",
                            results.cells.size(), results.ran, html(show_seconds(results.seconds)));
}

}  // namespace nibble::study
