#include "nn/lora.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <regex>

#include "base/rng.h"
#include "base/text.h"
#include "nn/table.h"

namespace nibble::nn {
namespace {

using io::AdapterConfig;

constexpr size_t kLongestPattern = 500;

// A pattern may come from a file: bounded (the library bounds its states), matched without backtracking, and
// an Error when it is none.
std::regex compile(const std::string& pattern) {
  require(pattern.size() <= kLongestPattern, "adapter",
          "a pattern in target_modules has {} characters, at most {} are allowed", pattern.size(),
          kLongestPattern);
  try {
    return std::regex(pattern, std::regex_constants::ECMAScript | std::regex_constants::__polynomial);
  } catch (const std::regex_error& e) {
    fail("adapter", "target_modules: \"{}\" is not a regular expression: {}", pattern, e.what());
  }
}

bool is_regex(const std::string& s) { return s.find_first_of("*+?^$()[]{}|\\") != std::string::npos; }

bool is_suffix(const std::string& module, const std::string& name) {
  if (module == name) return true;
  return module.size() > name.size() && module.ends_with(name) &&
         module[module.size() - name.size() - 1] == '.';
}

LoraPair make_pair(const AdapterConfig& config, const std::string& module, Tensor a, Tensor b) {
  return {.a = autograd::make_parameter(module + ".lora_A.weight", std::move(a)),
          .b = autograd::make_parameter(module + ".lora_B.weight", std::move(b)),
          .scale = static_cast<float>(io::scale_of(config, module)),
          .dropout = static_cast<float>(config.lora_dropout)};
}

Tensor as_f32(const Tensor& t, Allocator& allocator, std::string_view name) {
  Tensor out = Tensor::empty(allocator, t.shape(), kF32, name);
  const Tensor rows = t.shape().rank() == 1 ? t.reshape({1, t.numel()}) : t;
  if (out.raw() != nullptr) quant::decode_rows(quant::dense_weight(rows), 0, rows.size(0), out.data<float>());
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

// What the file saves whole, into the Linears it is of.
void assign_heads(const std::function<void(const LinearVisitor&)>& heads, const io::AdapterFile& file,
                  Allocator& allocator) {
  size_t used = 0;
  const auto saved = [&](const std::string& name) -> Tensor {
    for (const auto& [key, value] : file.saved)
      if (key == name) {
        ++used;
        return as_f32(value, allocator, "head");
      }
    fail("adapter", "saves no {}, which this model's head has; it was trained for another task", name);
  };
  if (heads)
    heads([&](Linear& linear) {
      Tensor weight = saved(linear.name() + ".weight");
      linear.assign(std::move(weight), linear.has_bias() ? saved(linear.name() + ".bias") : Tensor());
    });
  require(used == file.saved.size(), "adapter",
          "saves {} whole (modules_to_save), which this model does not train as a head",
          file.saved.empty() ? "" : file.saved[0].first);
}

}  // namespace

bool is_output_head(const std::string& module) { return module == "lm_head" || module == "embed_out"; }

bool targets_module(const std::vector<std::string>& target_modules, const std::string& module) {
  if (target_modules.size() == 1) {
    if (target_modules[0] == "all-linear") return !is_output_head(module);
    if (is_regex(target_modules[0])) return std::regex_match(module, compile(target_modules[0]));
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
    const int64_t r = io::rank_of(config, module);
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
    linear.set_adapter(id, make_pair(config, module, std::move(a), std::move(b)));
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
                    int id, Allocator& allocator, const std::function<void(const LinearVisitor&)>& heads) {
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
            pair.module, pair.a.shape(), pair.b.shape(), out, in);
    return *it->second;
  };
  for (const io::AdapterPair& pair : file.pairs) check(pair);  // all or none
  const MemoryGroup group(allocator, "adapter");
  assign_heads(heads, file, allocator);
  for (const io::AdapterPair& pair : file.pairs)
    check(pair).set_adapter(id, make_pair(file.config, pair.module, as_f32(pair.a, allocator, "lora_A"),
                                          as_f32(pair.b, allocator, "lora_B")));
}

io::AdapterFile adapter_file(const std::function<void(const LinearVisitor&)>& visit,
                             const AdapterConfig& config, int id,
                             const std::function<void(const LinearVisitor&)>& heads) {
  io::AdapterFile file;
  file.config = config;
  visit([&](Linear& linear) {
    LoraPair* pair = linear.adapter(id);
    if (pair == nullptr) return;
    file.pairs.push_back({linear.name(), pair->a.variable.value(), pair->b.variable.value()});
    if (linear.stored() == Stored::kInOut) file.config.fan_in_fan_out = true;
  });
  if (heads)
    heads([&](Linear& linear) {
      file.saved.emplace_back(linear.name() + ".weight",
                              decode_master(linear.weight(), host_allocator(), "head"));
      if (linear.has_bias()) file.saved.emplace_back(linear.name() + ".bias", linear.bias());
    });
  if (!file.saved.empty()) file.config.task_type = "SEQ_CLS";
  return file;
}

}  // namespace nibble::nn
