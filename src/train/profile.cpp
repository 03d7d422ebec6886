#include "train/profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "backend/kernel_slot.h"
#include "backend/limits.h"
#include "base/json.h"
#include "base/process.h"
#include "base/text.h"

namespace nibble::train {
namespace {

constexpr int64_t kThin = 256;  // products with a smaller side are an adapter's

// Gathers what the operations and the kernels of a step say. An operation's time is what passed since the one
// before it ended: operations run one after another.
class StepWatch : public autograd::OpObserver, public backend::KernelWatch {
 public:
  StepWatch() : last_(now_seconds()) { backend::kernel_watch = this; }
  ~StepWatch() override { backend::kernel_watch = nullptr; }
  StepWatch(const StepWatch&) = delete;
  StepWatch& operator=(const StepWatch&) = delete;

  void on_op(const char* name, bool backward, const Tensor&, double flops, double bytes) override {
    add(ops_[std::string(name) + (backward ? ", backward" : "")], flops, bytes, now_seconds() - last_);
    last_ = now_seconds();
  }

  void on_kernel(const char* name, std::span<const Tensor* const> arguments, double seconds) override {
    double bytes = 0, flops = 0;
    for (const Tensor* t : arguments)
      if (t != nullptr && t->defined()) bytes += static_cast<double>(t->bytes());
    std::string key = name;
    const auto product = [&](int64_t m, int64_t n, int64_t k) {
      backend::ProductShape& shape = products_[{m, n, k}];
      shape = {m, n, k, shape.m == 0 ? 1 : shape.count + 1};
      return 2.0 * static_cast<double>(m * n) * static_cast<double>(k);
    };
    if (key == "matmul") {
      const Tensor &b = *arguments[1], &c = *arguments[2];
      const int64_t m = c.size(0), n = c.size(1), k = n == 0 ? 0 : b.numel() / n;
      key = fmt::format("matmul [{}, {}] · {} {}", m, k, n, dtype_name(b.dtype()));
      flops = product(m, n, k);
    } else if (key == "low_rank_matmul") {
      const Tensor &x = *arguments[0], &t = *arguments[4], &c = *arguments[5];
      const int64_t m = c.size(0), n = c.size(1), k = x.size(1), r = t.size(1);
      key = fmt::format("low_rank_matmul [{}, {}] · {} with {}", m, k, n, r);
      flops = product(m, n, k) + 2.0 * static_cast<double>(m * r) * static_cast<double>(n + k);
    } else if (key == "thin_gradient") {
      const Tensor &s = *arguments[0], &x = *arguments[1];
      key = fmt::format("thin_gradient {}: {} x {}", x.size(0), s.size(1), x.size(1));
      flops = product(s.size(1), x.size(1), x.size(0));
    }
    add(kernels_[key], flops, bytes, seconds);
  }

  // Optimizer and all else after the last operation.
  void end_of_step() { on_op("norm, clipping, optimizer", false, Tensor(), 0, 0); }

  double flops() const {
    double sum = 0;
    for (const auto& [name, row] : ops_) sum += row.flops;
    return sum;
  }
  std::vector<ProfileRow> ops() const { return sorted(ops_); }
  std::vector<ProfileRow> kernels() const { return sorted(kernels_); }
  std::vector<backend::ProductShape> large_products() const {
    std::vector<backend::ProductShape> shapes;
    for (const auto& [key, shape] : products_)
      if (std::min({shape.m, shape.n, shape.k}) >= kThin) shapes.push_back(shape);
    return shapes;
  }

 private:
  using Rows = std::map<std::string, ProfileRow>;
  static void add(ProfileRow& row, double flops, double bytes, double seconds) {
    row.calls += seconds > 1e-7 || flops > 0 ? 1 : 0;
    row.seconds += seconds;
    row.flops += flops;
    row.bytes += bytes;
  }
  static std::vector<ProfileRow> sorted(const Rows& rows) {
    std::vector<ProfileRow> list;
    for (const auto& [name, row] : rows) {
      list.push_back(row);
      list.back().name = name;
    }
    std::stable_sort(list.begin(), list.end(),
                     [](const ProfileRow& a, const ProfileRow& b) { return a.seconds > b.seconds; });
    return list;
  }

  Rows ops_, kernels_;
  std::map<std::array<int64_t, 3>, backend::ProductShape> products_;
  double last_;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n == 0 ? 0 : (values[(n - 1) / 2] + values[n / 2]) / 2;
}

double products_of(const std::vector<backend::ProductShape>& shapes) {
  double flops = 0;
  for (const backend::ProductShape& s : shapes)
    flops += 2 * s.count * static_cast<double>(s.m * s.n) * static_cast<double>(s.k);
  return flops;
}

}  // namespace

double ProfileRow::limit_seconds(const MachineLimits& limits) const {
  return std::max(limits.products > 0 ? flops / limits.products : 0,
                  limits.bandwidth > 0 ? bytes / limits.bandwidth : 0);
}

double StepProfile::share() const { return median(rounds); }

StepProfile profile_step(Engine& engine, const data::StepBatch& batch, int rounds) {
  constexpr double kRate = 1e-5;
  StepProfile profile;
  profile.tokens = batch.tokens;
  profile.trained_tokens = batch.trained_tokens;
  int64_t step = 0;
  const auto run = [&] {
    ++step;
    const double began = now_seconds();
    const StepOutcome outcome = engine.step(batch, step, step, kRate);
    require(outcome.nonfinite.empty(), "bench", "step {}: not finite: {}", step, outcome.nonfinite);
    if (outcome.interrupted) throw Interrupted("bench", "interrupted");
    return now_seconds() - began;
  };
  run();
  profile.first_ended = now_seconds();
  std::vector<backend::ProductShape> shapes;
  {
    StepWatch watch;
    engine.watch(&watch);
    profile.watched = run();
    engine.watch(nullptr);
    watch.end_of_step();
    profile.flops = watch.flops();
    profile.ops = watch.ops();
    profile.kernels = watch.kernels();
    shapes = watch.large_products();
  }
  profile.peak_bytes = peak_resident_bytes();
  const double product_flops = products_of(shapes);
  std::vector<double> seconds, limits;
  for (int i = 0; i < rounds; ++i) {
    seconds.push_back(run());
    limits.push_back(shapes.empty()
                         ? backend::matmul_limit_flops(engine.compute())
                         : product_flops / backend::product_limit_seconds(shapes, 5, engine.compute()));
    profile.rounds.push_back(profile.flops / limits.back() / seconds.back());
  }
  profile.seconds = median(seconds);
  profile.limits = {backend::limit_dtype(engine.compute()), median(limits), backend::copy_bandwidth()};
  profile.limit_seconds = profile.flops / profile.limits.products;
  return profile;
}

std::string profile_table(const StepProfile& p) {
  std::string text = fmt::format(
      "limits      {:.1f} GFLOP/s in {} products, {:.1f} GB/s of memory\n"
      "step        {} for {} tokens ({} learned): {:.0f} tokens/s, {:.2f} GFLOP a token\n"
      "            {:.1f} % of the product limit (rounds:",
      p.limits.products / 1e9, dtype_name(p.limits.type), p.limits.bandwidth / 1e9, show_seconds(p.seconds),
      show_count(p.tokens), show_count(p.trained_tokens), static_cast<double>(p.tokens) / p.seconds,
      p.flops / 1e9 / static_cast<double>(p.tokens), p.share() * 100);
  for (const double round : p.rounds) text += fmt::format(" {:.1f}", round * 100);
  text += ")\n";
  const auto table = [&](const char* title, const std::vector<ProfileRow>& rows) {
    text += fmt::format("\n{:<46} {:>6} {:>9} {:>7} {:>9} {:>9} {:>9} {:>7}\n", title, "calls", "ms", "share",
                        "GFLOP", "GB", "limit ms", "of it");
    for (const ProfileRow& row : rows) {
      const double limit = row.limit_seconds(p.limits);
      text += fmt::format("{:<46} {:>6} {:>9.1f} {:>6.1f}% {:>9.2f} {:>9.3f} {:>9.1f} {:>6.0f}%\n", row.name,
                          row.calls, row.seconds * 1e3, 100 * row.seconds / p.watched, row.flops / 1e9,
                          row.bytes / 1e9, limit * 1e3, 100 * limit / std::max(row.seconds, 1e-9));
    }
  };
  text += fmt::format("            peak {} resident\n", show_bytes(static_cast<double>(p.peak_bytes)));
  table("operation", p.ops);
  table("kernel", p.kernels);
  return text;
}

Json profile_json(const StepProfile& p) {
  const auto rows = [&](const std::vector<ProfileRow>& list) {
    Json json = Json::array();
    for (const ProfileRow& row : list)
      json.push_back({{"name", row.name},
                      {"calls", row.calls},
                      {"seconds", row.seconds},
                      {"flops", row.flops},
                      {"bytes", row.bytes},
                      {"limit_seconds", row.limit_seconds(p.limits)}});
    return json;
  };
  return {{"product_limit_flops", p.limits.products},
          {"bandwidth_bytes_per_second", p.limits.bandwidth},
          {"seconds_per_step", p.seconds},
          {"tokens", p.tokens},
          {"trained_tokens", p.trained_tokens},
          {"tokens_per_second", static_cast<double>(p.tokens) / p.seconds},
          {"flops_per_step", p.flops},
          {"limit_share", p.share()},
          {"limit_share_rounds", p.rounds},
          {"peak_rss_bytes", p.peak_bytes},
          {"operations", rows(p.ops)},
          {"kernels", rows(p.kernels)}};
}

}  // namespace nibble::train
