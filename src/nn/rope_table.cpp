#include "nn/rope_table.h"

#include <algorithm>
#include <cmath>

#include "base/parallel.h"

namespace nibble::nn {
namespace {

constexpr const char* kWhere = "config.json";
constexpr double kTwoPi = 6.283185307179586476925;
constexpr int64_t kFirstRows = 4096;

double yarn_scale(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

// Dimension whose wave turns `rotations` times within the original context.
double yarn_dimension(const RopeSpec& s, double rotations) {
  return static_cast<double>(s.dims) * std::log(s.original_max_positions / (rotations * kTwoPi)) /
         (2 * std::log(s.theta));
}

void apply_llama3(const RopeSpec& s, std::vector<float>& f) {
  const double longest = s.original_max_positions / s.low_freq_factor,
               shortest = s.original_max_positions / s.high_freq_factor;
  for (float& x : f) {
    const double wave = kTwoPi / x;
    if (wave > longest) {
      x = static_cast<float>(x / s.factor);
    } else if (wave >= shortest) {
      const double smooth =
          (s.original_max_positions / wave - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
      x = static_cast<float>((1 - smooth) * x / s.factor + smooth * x);
    }
  }
}

void apply_yarn(const RopeSpec& s, std::vector<float>& f) {
  double low = yarn_dimension(s, s.beta_fast), high = yarn_dimension(s, s.beta_slow);
  if (s.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(s.dims - 1));
  if (low == high) high += 0.001;
  for (size_t i = 0; i < f.size(); ++i) {
    const double stretched = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    f[i] = static_cast<float>(f[i] / s.factor * stretched + f[i] * (1 - stretched));
  }
}

}  // namespace

RopeSpec RopeSpec::from_config(const Json& config, int64_t dims, int64_t max_positions) {
  RopeSpec s;
  s.dims = dims;
  s.max_positions = max_positions;
  require(dims > 0 && dims % 2 == 0, kWhere, "rotary embeddings need an even head width, got {}", dims);
  for (const char* known : {"rope_scaling", "rope_parameters"})
    if (config.contains(known) && !config[known].is_null() && !config[known].is_object())
      fail(kWhere, "\"{}\" should be an object or null, got {}", known, config[known].dump());
  const char* key = config.contains("rope_scaling") && config["rope_scaling"].is_object() ? "rope_scaling"
                                                                                          : "rope_parameters";
  const Json scaling = config.contains(key) ? config[key] : Json();
  s.theta = json_get<double>(config, "rope_theta", json_get<double>(scaling, "rope_theta", 10000.0, kWhere),
                             kWhere);
  require(std::isfinite(s.theta) && s.theta > 1, kWhere, "rope_theta should be above 1, got {}", s.theta);
  if (!scaling.is_object()) return s;

  const auto number = [&](const char* name, double otherwise) {
    return json_get<double>(scaling, name, otherwise, kWhere);
  };
  const auto type = json_get<std::string>(scaling, "rope_type",
                                          json_get<std::string>(scaling, "type", "default", kWhere), kWhere);
  if (type == "default") return s;
  const auto factor_list = [&](const char* name) {
    auto list = json_get<std::vector<double>>(scaling, name, kWhere);
    require(static_cast<int64_t>(list.size()) == dims / 2, kWhere, "{} rope {} for {} rotary pairs",
            list.size(), name, dims / 2);
    for (const double f : list)
      require(std::isfinite(f) && f > 0, kWhere, "a rope factor should be positive, got {}", f);
    return list;
  };
  if (type == "factors") {
    s.kind = RopeKind::kFactors;
    s.factors = factor_list("factors");
    return s;
  }
  s.kind = type == "linear"                     ? RopeKind::kLinear
           : type == "dynamic"                  ? RopeKind::kDynamic
           : type == "llama3"                   ? RopeKind::kLlama3
           : type == "yarn"                     ? RopeKind::kYarn
           : type == "longrope" || type == "su" ? RopeKind::kLongRope
                                                : RopeKind::kDefault;
  require(s.kind != RopeKind::kDefault, kWhere,
          "unknown rope_type \"{}\"; known are default, linear, dynamic, llama3, yarn, longrope", type);
  s.original_max_positions = number("original_max_position_embeddings",
                                    json_get<double>(config, "original_max_position_embeddings",
                                                     static_cast<double>(max_positions), kWhere));
  require(s.original_max_positions >= 1, kWhere, "original_max_position_embeddings is {}",
          s.original_max_positions);
  s.factor = number("factor", static_cast<double>(max_positions) / s.original_max_positions);
  require(std::isfinite(s.factor) && s.factor > 0, kWhere,
          "the rope scaling factor should be positive, got {}", s.factor);
  s.low_freq_factor = number("low_freq_factor", 1);
  s.high_freq_factor = number("high_freq_factor", 4);
  require(s.low_freq_factor > 0 && s.high_freq_factor > s.low_freq_factor, kWhere,
          "high_freq_factor should be above low_freq_factor, got {} and {}", s.high_freq_factor,
          s.low_freq_factor);
  if (s.kind == RopeKind::kLongRope) {
    s.factors = factor_list("short_factor");
    s.long_factors = factor_list("long_factor");
    require(s.original_max_positions > 1, kWhere, "original_max_position_embeddings is {}",
            s.original_max_positions);
    s.attention_factor =
        number("attention_factor",
               s.factor <= 1 ? 1 : std::sqrt(1 + std::log(s.factor) / std::log(s.original_max_positions)));
  }
  if (s.kind == RopeKind::kYarn) {
    s.beta_fast = number("beta_fast", 32);
    s.beta_slow = number("beta_slow", 1);
    s.truncate = json_get<bool>(scaling, "truncate", true, kWhere);
    const double mscale = number("mscale", 0), mscale_all = number("mscale_all_dim", 0);
    s.attention_factor =
        number("attention_factor", mscale != 0 && mscale_all != 0
                                       ? yarn_scale(s.factor, mscale) / yarn_scale(s.factor, mscale_all)
                                       : yarn_scale(s.factor, 1));
  }
  return s;
}

double partial_rotary_factor(const Json& config, double otherwise) {
  constexpr const char* kKey = "partial_rotary_factor";
  double part = json_get<double>(config, kKey, otherwise, kWhere);
  for (const char* place : {"rope_scaling", "rope_parameters"})
    if (config.contains(place) && config[place].is_object())
      part = json_get<double>(config[place], kKey, part, kWhere);
  require(part > 0 && part <= 1, kWhere, "{} should be above 0 and at most 1, got {}", kKey, part);
  return part;
}

std::vector<float> RopeSpec::frequencies(int64_t length) const {
  double base = theta;
  const auto n = static_cast<double>(dims);
  if (kind == RopeKind::kDynamic && dims > 2) {
    const double context = static_cast<double>(max_positions),
                 longest = static_cast<double>(std::max(length, max_positions));
    base *= std::pow(factor * longest / context - (factor - 1), n / (n - 2));
  }
  std::vector<float> f(static_cast<size_t>(dims / 2));
  for (size_t i = 0; i < f.size(); ++i) {
    const auto exponent = static_cast<float>(2.0 * static_cast<double>(i) / n);
    f[i] = 1.0f / static_cast<float>(std::pow(base, static_cast<double>(exponent)));
    if (kind == RopeKind::kLinear) f[i] = static_cast<float>(f[i] / factor);
    if (kind == RopeKind::kFactors) f[i] = static_cast<float>(f[i] / factors[i]);
    if (kind == RopeKind::kLongRope)
      f[i] = static_cast<float>(
          f[i] / (static_cast<double>(length) > original_max_positions ? long_factors[i] : factors[i]));
  }
  if (kind == RopeKind::kLlama3) apply_llama3(*this, f);
  if (kind == RopeKind::kYarn) apply_yarn(*this, f);
  return f;
}

RopeTable::RopeTable(RopeSpec spec, Allocator& allocator) : spec_(std::move(spec)), allocator_(&allocator) {
  build(std::min(std::max<int64_t>(spec_.max_positions, 1), kFirstRows), spec_.max_positions);
}

const Tensor& RopeTable::covering(const Tensor& positions) {
  if (positions.raw() == nullptr || positions.device() != Device::kCpu || positions.numel() == 0)
    return table_;
  const auto* p = positions.data<int32_t>();
  const int64_t end = int64_t{*std::max_element(p, p + positions.numel())} + 1;
  // Dynamic scaling is a function of the sequence's own length, so it also goes back when shorter ones
  // follow; longrope asks only whether it is beyond the original context.
  int64_t length = length_;
  if (spec_.kind == RopeKind::kDynamic) length = std::max(end, spec_.max_positions);
  if (spec_.kind == RopeKind::kLongRope) {
    const auto original = static_cast<int64_t>(spec_.original_max_positions);
    length = end > original ? original + 1 : original;
  }
  if (end > table_.size(0) || length != length_) build(std::max(table_.size(0), end + end / 2), length);
  return table_;
}

void RopeTable::build(int64_t rows, int64_t length) {
  const int64_t half = spec_.dims / 2;
  length_ = length;
  {
    const MemoryGroup group(*allocator_, "weights");
    table_ = Tensor::empty(*allocator_, {rows, spec_.dims}, kF32, "rope_table");
  }
  if (table_.raw() == nullptr) return;
  const std::vector<float> f = spec_.frequencies(length);
  auto* out = table_.data<float>();
  const auto scale = static_cast<float>(spec_.attention_factor);
  parallel_for(rows, 64, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p)
      for (int64_t i = 0; i < half; ++i) {
        const float angle = static_cast<float>(p) * f[static_cast<size_t>(i)];
        out[p * spec_.dims + i] = static_cast<float>(std::cos(static_cast<double>(angle))) * scale;
        out[p * spec_.dims + half + i] = static_cast<float>(std::sin(static_cast<double>(angle))) * scale;
      }
  });
}

}  // namespace nibble::nn
