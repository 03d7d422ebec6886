#include "nn/lora.h"

#include <algorithm>
#include <cmath>
#include <regex>

#include "base/rng.h"
#include "base/text.h"

namespace nibble::nn {
namespace {

using io::AdapterConfig;

constexpr size_t kLongestPattern = 500;

// Patterns come from files: bounded, and an invalid one is an Error.
std::regex compile(const std::string& pattern, const char* key) {
  require(pattern.size() <= kLongestPattern, "adapter",
          "a pattern in {} has {} characters, at most {} are allowed", key, pattern.size(), kLongestPattern);
  try {
    return std::regex(pattern, std::regex::ECMAScript);
  } catch (const std::regex_error& e) {
    fail("adapter", "{}: \"{}\" is not a regular expression: {}", key, pattern, e.what());
  }
}

bool is_regex(const std::string& s) { return s.find_first_of("*+?^$()[]{}|\\") != std::string::npos; }

bool is_suffix(const std::string& module, const std::string& name) {
  if (module == name) return true;
  return module.size() > name.size() && module.ends_with(name) &&
         module[module.size() - name.size() - 1] == '.';
}

// PEFT's rank_pattern and alpha_pattern: the first key that matches the end of the path, from a dot on.
template <class T>
T pattern_value(const std::map<std::string, T>& patterns, const std::string& module, T otherwise) {
  for (const auto& [key, value] : patterns)
    if (std::regex_match(module, compile("(.*\\.)?(" + key + ")", "rank_pattern or alpha_pattern")))
      return value;
  return otherwise;
}

LoraPair make_pair(const AdapterConfig& config, const std::string& module, int64_t rank, Tensor a, Tensor b) {
  const double alpha = pattern_value(config.alpha_pattern, module, config.lora_alpha);
  const auto r = static_cast<double>(rank);
  return {.a = autograd::make_parameter(module + ".lora_A.weight", std::move(a)),
          .b = autograd::make_parameter(module + ".lora_B.weight", std::move(b)),
          .scale = static_cast<float>(config.use_rslora ? alpha / std::sqrt(r) : alpha / r),
          .dropout = static_cast<float>(config.lora_dropout)};
}

Tensor as_f32(const Tensor& t, Allocator& allocator, std::string_view name) {
  Tensor out = Tensor::empty(allocator, t.shape(), kF32, name);
  if (out.raw() != nullptr) quant::decode_rows(quant::dense_weight(t), 0, t.size(0), out.data<float>());
  return out;
}

// "q_proj, k_proj, …": the last parts of the names, once each.
std::string known_names(const std::function<void(const LinearVisitor&)>& visit) {
  std::vector<std::string> names;
  visit([&](Linear& linear) {
    std::string last = linear.name().substr(linear.name().rfind('.') + 1);
    if (std::find(names.begin(), names.end(), last) == names.end()) names.push_back(std::move(last));
  });
  std::string all;
  for (const std::string& name : names) all += (all.empty() ? "" : ", ") + name;
  return all;
}

}  // namespace

bool is_output_head(const std::string& module) { return module == "lm_head" || module == "embed_out"; }

bool targets_module(const std::vector<std::string>& target_modules, const std::string& module) {
  if (target_modules.size() == 1) {
    if (target_modules[0] == "all-linear") return !is_output_head(module);
    if (is_regex(target_modules[0]))
      return std::regex_match(module, compile(target_modules[0], "target_modules"));
  }
  return std::any_of(target_modules.begin(), target_modules.end(),
                     [&](const auto& name) { return is_suffix(module, name); });
}

int64_t attach_lora(const std::function<void(const LinearVisitor&)>& visit, const AdapterConfig& config,
                    int id, uint64_t seed, Allocator& allocator) {
  require(config.r > 0, "adapter", "lora_r should be at least 1, got {}", config.r);
  const MemoryGroup group(allocator, "adapter");
  int64_t count = 0;
  visit([&](Linear& linear) {
    const std::string& module = linear.name();
    if (!targets_module(config.target_modules, module)) return;
    const int64_t in = linear.in_features(), out = linear.out_features();
    const int64_t r = pattern_value(config.rank_pattern, module, config.r);
    require(r > 0 && (r <= in || r <= out), "adapter", "rank {} is above both dimensions of {} [{}, {}]", r,
            module, out, in);
    Tensor a = Tensor::empty(allocator, {r, in}, kF32, "lora_A"),
           b = Tensor::empty(allocator, {out, r}, kF32, "lora_B");
    if (a.raw() != nullptr) {
      const Rng rng(seed, stream_id(module + ".lora_A"));
      const float bound = 1.0f / std::sqrt(static_cast<float>(in));
      for (int64_t i = 0; i < a.numel(); ++i)
        a.data<float>()[i] = bound * (2.0f * rng.uniform(static_cast<uint64_t>(i)) - 1.0f);
      std::fill_n(b.data<float>(), b.numel(), 0.0f);
    }
    linear.set_adapter(id, make_pair(config, module, r, std::move(a), std::move(b)));
    ++count;
  });
  if (count == 0) {
    std::string wanted;
    for (const std::string& t : config.target_modules) wanted += (wanted.empty() ? "" : ", ") + t;
    fail("adapter", "target_modules ({}) match no linear layer; this model has {}", wanted,
         known_names(visit));
  }
  return count;
}

void attach_adapter(const std::function<void(const LinearVisitor&)>& visit, const io::AdapterFile& file,
                    int id, Allocator& allocator) {
  std::map<std::string, Linear*> linears;
  visit([&](Linear& linear) { linears[linear.name()] = &linear; });
  const auto check = [&](const io::AdapterPair& pair) -> Linear& {
    const auto it = linears.find(pair.module);
    require(it != linears.end(), "adapter", "is for a layer \"{}\" that this model does not have; it has {}",
            pair.module, known_names(visit));
    const int64_t in = it->second->in_features(), out = it->second->out_features();
    require(pair.a.shape().rank() == 2 && pair.b.shape().rank() == 2 && pair.a.size(1) == in &&
                pair.b.size(0) == out && pair.a.size(0) == pair.b.size(1),
            "adapter",
            "{}: A {} and B {} do not fit a layer [{}, {}]; the adapter was trained on another model",
            pair.module, pair.a.shape().str(), pair.b.shape().str(), out, in);
    return *it->second;
  };
  for (const io::AdapterPair& pair : file.pairs) check(pair);  // all or none
  const MemoryGroup group(allocator, "adapter");
  for (const io::AdapterPair& pair : file.pairs)
    check(pair).set_adapter(
        id, make_pair(file.config, pair.module, pair.a.size(0), as_f32(pair.a, allocator, "lora_A"),
                      as_f32(pair.b, allocator, "lora_B")));
}

io::AdapterFile adapter_file(const std::function<void(const LinearVisitor&)>& visit,
                             const AdapterConfig& config, int id) {
  io::AdapterFile file;
  file.config = config;
  visit([&](Linear& linear) {
    LoraPair* pair = linear.adapter(id);
    if (pair == nullptr) return;
    file.pairs.push_back({linear.name(), pair->a.variable.value(), pair->b.variable.value()});
    if (linear.stored() == Stored::kInOut) file.config.fan_in_fan_out = true;
  });
  return file;
}

}  // namespace nibble::nn
