#include "io/peft_adapter.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <regex>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "io/safetensors.h"

namespace nibble::io {
namespace {

namespace fs = std::filesystem;
constexpr const char *kConfig = "adapter_config.json", *kWeights = "adapter_model.safetensors",
                     *kManifest = "nibble_manifest.json";
constexpr const char* kSequenceClassification = "SEQ_CLS";
constexpr std::string_view kToSave = "modules_to_save";
// What PEFT saves whole for that task type, whichever the model has.
constexpr const char* kHeads[] = {"classifier", "score"};
constexpr std::string_view kPrefix = "base_model.model.", kA = ".lora_A.weight", kB = ".lora_B.weight";

// As PEFT's get_pattern_key: a pattern matches the whole module path or a tail of it that begins behind a
// dot.
template <class T>
const T* match_pattern(const Patterns<T>& patterns, const std::string& module) {
  for (const auto& [pattern, value] : patterns) {
    // Nearly always a plain module path, whose dots stand for dots.
    if (pattern.find_first_of("\\^$*+?()[]{}|") == std::string::npos) {
      if (module == pattern || module.ends_with("." + pattern)) return &value;
      continue;
    }
    // The polynomial matcher: a hostile pattern costs time linear in its length, never exponential.
    require(pattern.size() <= 256 && pattern.find('{') == std::string::npos, kConfig,
            "the pattern \"{}\" is too long or counts with {{}}, which is not read here", pattern);
    try {
      const std::regex whole("(.*\\.)?(" + pattern + ")",
                             std::regex_constants::ECMAScript | std::regex_constants::__polynomial);
      if (std::regex_match(module, whole)) return &value;
    } catch (const std::regex_error& e) {
      fail(kConfig, "the pattern \"{}\" of rank_pattern or alpha_pattern is no regular expression: {}",
           pattern, e.what());
    }
  }
  return nullptr;
}

// Members that change what the tensors mean, and the value under which they change nothing.
void refuse_variants(const Json& c, const std::string& path) {
  const auto type = json_get<std::string>(c, "peft_type", path);
  require(type == "LORA", path, "is an adapter of type {}; LORA adapters can be read", type);
  const auto plain = [](const Json& v) {
    return v.is_null() || (v.is_boolean() && !v.get<bool>()) ||
           ((v.is_array() || v.is_object()) && v.empty());
  };
  struct Variant {
    const char *key, *name;
  };
  constexpr Variant kVariants[] = {
      {"use_dora", "DoRA"},
      {"use_qalora", "QALoRA"},
      {"use_bdlora", "BD-LoRA"},
      {"lora_bias", "a bias on lora_B"},
      {"modules_to_save", "whole modules beside the pairs (modules_to_save) where task_type is not SEQ_CLS"},
      {"target_parameters", "pairs on bare parameters (target_parameters)"},
      {"trainable_token_indices", "trained token embeddings (trainable_token_indices)"},
      {"layer_replication", "replicated layers (layer_replication)"},
      {"alora_invocation_tokens", "activated LoRA"},
      {"arrow_config", "Arrow routing"},
      {"kasa_config", "KaSA"},
      {"monteclora_config", "MonteCLoRA"},
      {"velora_config", "VeLoRA"}};
  const bool classifier = json_get<std::string>(c, "task_type", "", path) == kSequenceClassification;
  for (const Variant& v : kVariants)
    require(!c.contains(v.key) || plain(c[v.key]) || (classifier && v.key == kToSave), path,
            "uses {}, which is not read here: its results would be wrong", v.name);
  const auto bias = json_get<std::string>(c, "bias", "none", path);
  require(bias == "none", path, "trains biases (bias = \"{}\"), which are not read here", bias);
  if (!c.contains("init_lora_weights") || !c["init_lora_weights"].is_string()) return;
  const auto init = c["init_lora_weights"].get<std::string>();
  require(init == "gaussian" || init == "eva" || init == "orthogonal", path,
          "was initialised with {}, which changes the base weights; save it as a plain LoRA first "
          "(PEFT: save_pretrained(…, path_initial_model_for_weight_conversion=…))",
          init);
}

template <class T>
Patterns<T> read_patterns(const Json& c, const char* key, const std::string& path) {
  Patterns<T> out;
  if (!c.contains(key) || c[key].is_null()) return out;
  require(c[key].is_object(), path, "\"{}\" should map module patterns to numbers", key);
  for (const auto& [pattern, value] : c[key].items()) {
    const bool fits = std::is_integral_v<T> ? value.is_number_integer() : value.is_number();
    require(fits, path, "\"{}\" has {} for \"{}\", expected a number", key, value.dump(), pattern);
    out.emplace_back(pattern, value.template get<T>());
  }
  return out;
}

AdapterConfig read_config(const Json& c, const std::string& path) {
  require(c.is_object(), path, "should be a JSON object");
  refuse_variants(c, path);
  AdapterConfig out;
  out.r = json_get<int64_t>(c, "r", 8, path);
  require(out.r > 0 && out.r <= 65536, path, "\"r\" is {}, expected a rank of at least 1", out.r);
  out.lora_alpha = json_get<double>(c, "lora_alpha", 8, path);
  out.lora_dropout = json_get<double>(c, "lora_dropout", 0, path);
  require(std::isfinite(out.lora_alpha) && out.lora_dropout >= 0 && out.lora_dropout < 1, path,
          "lora_alpha {} or lora_dropout {} cannot be", out.lora_alpha, out.lora_dropout);
  out.use_rslora = json_get<bool>(c, "use_rslora", false, path);
  out.fan_in_fan_out = json_get<bool>(c, "fan_in_fan_out", false, path);
  out.rank_pattern = read_patterns<int64_t>(c, "rank_pattern", path);
  out.alpha_pattern = read_patterns<double>(c, "alpha_pattern", path);
  out.base_model = json_get<std::string>(c, "base_model_name_or_path", "", path);
  out.task_type = json_get<std::string>(c, "task_type", "", path);
  if (c.contains("target_modules") && c["target_modules"].is_array())
    out.target_modules = json_get<std::vector<std::string>>(c, "target_modules", path);
  return out;
}

// "base_model.model.classifier.weight" → "classifier.weight" where a head may be saved, else "".
std::string saved_name(const std::string& key, const AdapterConfig& config) {
  if (config.task_type != kSequenceClassification || !key.starts_with(kPrefix)) return "";
  std::string name = key.substr(kPrefix.size());
  if (name.ends_with(kA) || name.ends_with(kB)) return "";
  for (const char* head : kHeads)
    if (name.starts_with(std::string(head) + ".")) return name;
  return "";
}

// "base_model.model.X.lora_A.weight" → {X, true}.
std::pair<std::string, bool> parse_key(const std::string& key, const std::string& path) {
  std::string_view name = key;
  const bool a = name.ends_with(kA), b = name.ends_with(kB);
  require(name.starts_with(kPrefix) && (a || b), path,
          "has the tensor \"{}\"; only base_model.model.<module>.lora_A.weight and .lora_B.weight are read",
          key);
  name.remove_prefix(kPrefix.size());
  name.remove_suffix(kA.size());
  require(!name.empty(), path, "has a tensor without a module: \"{}\"", key);
  return {std::string(name), a};
}

float value_at(const Tensor& t, int64_t i) {
  if (t.dtype() == kF32) return t.data<float>()[i];
  return t.dtype() == kF16 ? to_float(t.data<Float16>()[i]) : to_float(t.data<BFloat16>()[i]);
}

void check_part(const Tensor& t, const std::string& module, const char* part, const std::string& path) {
  require(t.defined(), path, "module {} has no lora_{}", module, part);
  require(t.shape().rank() == 2 && t.numel() > 0, path, "lora_{} of {} is {}, expected a matrix", part,
          module, t.shape().str());
  require(t.dtype() == kF32 || t.dtype() == kF16 || t.dtype() == kBF16, path,
          "lora_{} of {} is {}, expected F32, F16 or BF16", part, module, dtype_name(t.dtype()));
  for (int64_t i = 0; i < t.numel(); ++i)
    require(std::isfinite(value_at(t, i)), path, "lora_{} of {} holds {} at row {}, column {}", part, module,
            value_at(t, i), i / t.size(1), i % t.size(1));
}

void check_saved(const Tensor& t, const std::string& name, const std::string& path) {
  require((t.shape().rank() == 1 || t.shape().rank() == 2) && t.numel() > 0, path,
          "{} is {}, expected a matrix or a vector", name, t.shape().str());
  require(t.dtype() == kF32 || t.dtype() == kF16 || t.dtype() == kBF16, path,
          "{} is {}, expected F32, F16 or BF16", name, dtype_name(t.dtype()));
  for (int64_t i = 0; i < t.numel(); ++i)
    require(std::isfinite(value_at(t, i)), path, "{} holds {} at element {}", name, value_at(t, i), i);
}

// `map`: where the values lie, if in a file, whose pages then need not stay.
void check_pairs(const AdapterFile& file, const std::string& path, const MappedFile* map = nullptr) {
  require(!file.pairs.empty(), path, "holds no LoRA pair at all");
  for (const auto& [name, value] : file.saved) check_saved(value, name, path);
  for (const AdapterPair& p : file.pairs) {
    check_part(p.a, p.module, "A", path);
    check_part(p.b, p.module, "B", path);
    const int64_t r = rank_of(file.config, p.module);
    require(p.a.size(0) == r && p.b.size(1) == r, path,
            "module {} has A {} and B {} but its rank is {} by {}; do the two files belong together?",
            p.module, p.a.shape().str(), p.b.shape().str(), r, kConfig);
    if (map == nullptr) continue;
    for (const Tensor* t : {&p.a, &p.b}) map->forget({t->raw(), static_cast<size_t>(t->bytes())});
  }
}

// "all-linear" is written as the last names of the modules it meant, which needs no rule of a reader; where a
// module that is saved whole has such a last name ("classifier.dense"), as the last two. A regular expression
// is a string to PEFT; in a list it would be the name of a module.
Json targets_json(const AdapterFile& file) {
  const std::vector<std::string>& targets = file.config.target_modules;
  if (targets.size() != 1) return targets;
  if (targets[0] == "all-linear") {
    std::set<std::string> names;
    const auto tail = [](const std::string& module, int parts) {
      size_t at = module.size();
      for (; parts > 0 && at != std::string::npos && at > 0; --parts) at = module.rfind('.', at - 1);
      return at == std::string::npos ? module : module.substr(at + 1);
    };
    for (const AdapterPair& p : file.pairs) {
      const std::string last = tail(p.module, 1);
      const bool shared = std::any_of(file.saved.begin(), file.saved.end(), [&](const auto& s) {
        return s.first.find("." + last + ".") != std::string::npos;
      });
      names.insert(shared ? tail(p.module, 2) : last);
    }
    return names;
  }
  if (targets[0].find_first_of("*+?^$()[]{}|\\") != std::string::npos) return targets[0];
  return targets;
}

Json config_json(const AdapterFile& file) {
  const AdapterConfig& c = file.config;
  const auto number = [](double v) {
    return v == std::floor(v) && std::abs(v) < 1e15 ? Json(static_cast<int64_t>(v)) : Json(v);
  };
  Json ranks = Json::object(), alphas = Json::object();
  for (const auto& [pattern, rank] : c.rank_pattern) ranks[pattern] = rank;
  for (const auto& [pattern, alpha] : c.alpha_pattern) alphas[pattern] = number(alpha);
  return {{"peft_type", "LORA"},
          {"task_type", c.task_type.empty() ? Json() : Json(c.task_type)},
          {"base_model_name_or_path", c.base_model},
          {"r", c.r},
          {"lora_alpha", number(c.lora_alpha)},
          {"lora_dropout", c.lora_dropout},
          {"use_rslora", c.use_rslora},
          {"target_modules", targets_json(file)},
          {"rank_pattern", ranks},
          {"alpha_pattern", alphas},
          {"bias", "none"},
          {"fan_in_fan_out", c.fan_in_fan_out},
          {"modules_to_save", file.saved.empty() ? Json() : Json(kHeads)},
          {"layers_to_transform", nullptr},
          {"layers_pattern", nullptr},
          {"init_lora_weights", true},
          {"inference_mode", true}};
}

// A directory beside the wanted one that vanishes unless it was renamed.
struct Staging {
  explicit Staging(const std::string& target) : path(fmt::format("{}.tmp-{}", target, ::getpid())) {
    fs::remove_all(path);
    make_directories(path);
  }
  ~Staging() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  std::string path;
};

void rename_or_fail(const std::string& from, const std::string& to) {
  require(::rename(from.c_str(), to.c_str()) == 0, to, "cannot rename into place: {}", std::strerror(errno));
}

bool same_bytes(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
         std::memcmp(a.raw(), b.raw(), static_cast<size_t>(a.bytes())) == 0;
}

}  // namespace

int64_t rank_of(const AdapterConfig& config, const std::string& module) {
  const int64_t* r = match_pattern(config.rank_pattern, module);
  return r != nullptr ? *r : config.r;
}

double scale_of(const AdapterConfig& config, const std::string& module) {
  const double* alpha = match_pattern(config.alpha_pattern, module);
  const auto r = static_cast<double>(rank_of(config, module));
  return (alpha != nullptr ? *alpha : config.lora_alpha) / (config.use_rslora ? std::sqrt(r) : r);
}

AdapterFile read_adapter(const std::string& directory) {
  const fs::path folder(directory);
  require(fs::is_directory(folder), directory, "is no directory; an adapter is a directory with {} and {}",
          kConfig, kWeights);
  const std::string config_path = (folder / kConfig).string(), weights_path = (folder / kWeights).string();
  require(fs::exists(config_path), directory, "holds no {}; is it an adapter of PEFT?", kConfig);
  require(fs::exists(weights_path), directory, "holds no {}{}", kWeights,
          fs::exists(folder / "adapter_model.bin")
              ? "; its adapter_model.bin is a pickle, which is not read: save it as safetensors"
              : "");
  const Json config = parse_json(read_file(config_path, 1 << 20), config_path);
  AdapterFile file;
  file.config = read_config(config, config_path);

  const SafetensorsFile tensors = SafetensorsFile::open(weights_path);
  std::map<std::string, AdapterPair> pairs;
  for (const SafetensorsEntry& e : tensors.entries) {
    if (std::string name = saved_name(e.name, file.config); !name.empty()) {
      file.saved.emplace_back(std::move(name), tensors.tensor(e.name));
      continue;
    }
    const auto [module, is_a] = parse_key(e.name, weights_path);
    AdapterPair& p = pairs[module];
    p.module = module;
    (is_a ? p.a : p.b) = tensors.tensor(e.name);
  }
  for (auto& [module, pair] : pairs) file.pairs.push_back(std::move(pair));
  check_pairs(file, weights_path, tensors.map.get());
  tensors.map->forget(tensors.map->bytes());

  if (file.config.target_modules
          .empty()) {  // a regular expression or "all-linear": the pairs say what it meant
    for (const AdapterPair& p : file.pairs) file.config.target_modules.push_back(p.module);
  }
  if (const std::string path = (folder / kManifest).string(); fs::exists(path))
    file.manifest = parse_json(read_file(path, 16 << 20), path);
  return file;
}

void write_adapter(const std::string& directory, const AdapterFile& adapter) {
  fs::path target = fs::path(directory).lexically_normal();
  if (!target.has_filename()) target = target.parent_path();
  const std::string path = target.string();
  check_pairs(adapter, path);
  std::set<std::string> modules;
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const AdapterPair& p : adapter.pairs) {
    require(modules.insert(p.module).second, path, "module {} has two pairs", p.module);
    tensors.emplace_back(std::string(kPrefix) + p.module + std::string(kA), p.a);
    tensors.emplace_back(std::string(kPrefix) + p.module + std::string(kB), p.b);
  }
  for (const auto& [name, value] : adapter.saved) tensors.emplace_back(std::string(kPrefix) + name, value);

  if (target.has_parent_path()) make_directories(target.parent_path().string());
  const Staging staging(path);
  write_safetensors(staging.path + "/" + kWeights, tensors, {{"format", "pt"}});
  write_file_atomic(staging.path + "/" + kConfig, config_json(adapter).dump(2) + "\n");
  if (!adapter.manifest.is_null())
    write_file_atomic(staging.path + "/" + kManifest, adapter.manifest.dump(2) + "\n");

  read_adapter(staging.path);
  const SafetensorsFile back = SafetensorsFile::open(staging.path + "/" + kWeights);
  for (const auto& [name, t] : tensors) {
    require(same_bytes(back.tensor(name), t), path,
            "{} was not read back as it was written; is the disk failing?", name);
    back.map->forget(back.find(name)->data);  // a run's peak memory is its step, not its saving
  }

  if (!fs::exists(target)) {
    rename_or_fail(staging.path, path);
  } else {
    for (const char* name : {kManifest, kConfig, kWeights})
      if (const std::string from = staging.path + "/" + name; fs::exists(from))
        rename_or_fail(from, path + "/" + name);
    sync_directory(path);
  }
  sync_directory(target.parent_path().string());
}

void require_same_base(const AdapterFile& adapter, const std::string& directory, const ModelFiles& files) {
  if (!adapter.manifest.is_object()) return;
  const auto trained_on = json_get<std::string>(adapter.manifest, "base_hash", "", directory);
  if (trained_on.empty()) return;
  auto lineage = json_get<std::vector<std::string>>(adapter.manifest, "base_sources", {}, directory);
  lineage.push_back(trained_on);
  const auto known = [&](const std::string& hash) {
    return std::find(lineage.begin(), lineage.end(), hash) != lineage.end();
  };
  if (std::any_of(files.sources.begin(), files.sources.end(), known)) return;  // without reading the weights
  const std::string here = files.hash();
  require(known(here), directory,
          "this adapter was trained on other weights: its manifest names base {}, {} is {}{}; give the model "
          "it was trained on{}, or a checkpoint that nibble quantized from it",
          trained_on, files.path, here,
          files.sources.empty() ? "" : fmt::format(" (made from {})", fmt::join(files.sources, ", ")),
          adapter.config.base_model.empty() ? "" : " (" + adapter.config.base_model + ")");
}

}  // namespace nibble::io
