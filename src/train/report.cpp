#include "train/report.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/text.h"
#include "base/ticks.h"

namespace nibble::train {
namespace {

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();
  void take(double value) {
    if (!std::isfinite(value)) return;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  bool empty() const { return !(low <= high); }
  double place(double value) const { return high > low ? (value - low) / (high - low) : 0.5; }
};

std::string escape(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (static_cast<unsigned char>(c) >= 0x20)
      out += c;
  }
  return out;
}

// The loss that column x of `width` shows: the mean of its steps, or between two steps a point on the line.
double value_at(const std::vector<StepMetrics>& steps, int x, int width) {
  const auto n = static_cast<int64_t>(steps.size());
  if (n < width) {
    const double at = static_cast<double>(x) * static_cast<double>(n - 1) / (width - 1);
    const auto i = std::min(static_cast<size_t>(at), steps.size() - 2);
    return steps[i].loss + (at - static_cast<double>(i)) * (steps[i + 1].loss - steps[i].loss);
  }
  double sum = 0;
  int64_t count = 0;
  for (int64_t i = x * n / width; i < (x + 1) * n / width; ++i)
    if (std::isfinite(steps[static_cast<size_t>(i)].loss)) sum += steps[static_cast<size_t>(i)].loss, ++count;
  return sum / static_cast<double>(count);
}

}  // namespace

std::string loss_curve(const std::vector<StepMetrics>& steps, int columns, int rows) {
  Range range;
  for (const StepMetrics& s : steps) range.take(s.loss);
  if (steps.size() < 2 || range.empty()) return "";
  columns = std::clamp(columns, 10, 200);
  rows = std::clamp(rows, 2, 40);

  // Each cell holds 2 x 4 dots; neighbours are joined by a vertical line.
  const int width = columns * 2, height = rows * 4;
  std::vector<std::vector<uint8_t>> cells(static_cast<size_t>(rows),
                                          std::vector<uint8_t>(static_cast<size_t>(columns), 0));
  static constexpr uint8_t kDots[4][2] = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};
  const auto dot = [&](int x, int y) {
    cells[static_cast<size_t>(y / 4)][static_cast<size_t>(x / 2)] |= kDots[y % 4][x % 2];
  };
  int before = -1;
  for (int x = 0; x < width; ++x) {
    const double value = value_at(steps, x, width);
    if (!std::isfinite(value)) continue;
    const int y = static_cast<int>(std::lround((1 - range.place(value)) * (height - 1)));
    for (int between = std::min(y, before < 0 ? y : before); between <= std::max(y, before); ++between)
      dot(x, between);
    dot(x, y);
    before = y;
  }
  std::string text;
  for (int r = 0; r < rows; ++r) {
    const std::string label = r == 0          ? fmt::format("{:.3f}", range.high)
                              : r == rows - 1 ? fmt::format("{:.3f}", range.low)
                                              : "";
    text += fmt::format("{:>9} ┤", label);
    for (const uint8_t cell : cells[static_cast<size_t>(r)]) append_utf8(text, 0x2800u + cell);
    text += '\n';
  }
  const std::string first = std::to_string(steps.front().step), last = std::to_string(steps.back().step);
  text += fmt::format(
      "{:>11}{}{}{}\n", "", first,
      std::string(
          static_cast<size_t>(std::max<int>(columns - static_cast<int>(first.size() + last.size()), 1)), ' '),
      last);
  return text;
}

std::string loss_svg(const std::vector<StepMetrics>& steps, const std::vector<EvalMetrics>& evals,
                     const std::string& title) {
  constexpr double kWidth = 840, kHeight = 420, kLeft = 70, kRight = 20, kTop = 50, kBottom = 50;
  Range x, y;
  for (const StepMetrics& s : steps) x.take(static_cast<double>(s.step)), y.take(s.loss);
  for (const EvalMetrics& e : evals) x.take(static_cast<double>(e.step)), y.take(e.loss);
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" "
      "font-size=\"13\">\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n<text x=\"{}\" y=\"28\" font-size=\"16\" "
      "fill=\"#222222\">{}</text>\n",
      kWidth, kHeight, kLeft, escape(title));
  if (x.empty() || y.empty()) return svg + "</svg>\n";
  const double pad = std::max((y.high - y.low) * 0.05, 1e-9);
  y.low -= pad;
  y.high += pad;
  const auto px = [&](double v) { return kLeft + x.place(v) * (kWidth - kLeft - kRight); };
  const auto py = [&](double v) { return kTop + (1 - y.place(v)) * (kHeight - kTop - kBottom); };

  const double dy = tick_distance(y.high - y.low, 6), dx = std::max(tick_distance(x.high - x.low, 8), 1.0);
  for (double v = std::ceil(y.low / dy) * dy; v <= y.high; v += dy)
    svg += fmt::format(
        "<line x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"#e4e4e4\"/><text x=\"{}\" "
        "y=\"{:.1f}\" text-anchor=\"end\" "
        "fill=\"#555555\">{:.4g}</text>\n",
        kLeft, kWidth - kRight, py(v), py(v), kLeft - 8, py(v) + 4, std::abs(v) < dy * 1e-6 ? 0.0 : v);
  for (double v = std::ceil(x.low / dx) * dx; v <= x.high; v += dx)
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555555\">{:.0f}</text>\n",
                       px(v), kHeight - kBottom + 20, v);
  svg += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555555\">step</text>\n",
                     kWidth / 2, kHeight - 10);

  const auto line = [&](const char* colour, double width, auto&& value) {
    std::string points;
    for (size_t i = 0; i < steps.size(); ++i)
      if (const double v = value(i); std::isfinite(v))
        points += fmt::format("{:.1f},{:.1f} ", px(static_cast<double>(steps[i].step)), py(v));
    svg += fmt::format("<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" points=\"{}\"/>\n", colour,
                       width, points);
  };
  const bool many = steps.size() >= 50;
  line(many ? "#b8cdea" : "#2f6db5", many ? 1 : 2, [&](size_t i) { return steps[i].loss; });
  if (many) {
    const double keep = 1 - 10.0 / static_cast<double>(steps.size());
    double mean = steps[0].loss;
    line("#2f6db5", 2, [&](size_t i) {
      return std::isfinite(steps[i].loss) ? mean = keep * mean + (1 - keep) * steps[i].loss : mean;
    });
  }
  for (const EvalMetrics& e : evals)
    if (std::isfinite(e.loss))
      svg += fmt::format(
          "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\" fill=\"#d1602f\"><title>held out, step {}: "
          "{:.4f}</title></circle>\n",
          px(static_cast<double>(e.step)), py(e.loss), e.step, e.loss);
  svg += fmt::format(
      "<text x=\"{}\" y=\"28\" text-anchor=\"end\"><tspan fill=\"#2f6db5\">training loss</tspan>{}</text>\n",
      kWidth - kRight, evals.empty() ? "" : "<tspan fill=\"#d1602f\" dx=\"14\">held-out loss</tspan>");
  return svg + "</svg>\n";
}

}  // namespace nibble::train
