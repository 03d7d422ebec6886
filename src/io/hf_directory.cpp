// Hugging Face's layout: config.json with model.safetensors, or shards and model.safetensors.index.json.
#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "io/bnb_parts.h"
#include "io/safetensors.h"
#include "io/sources.h"

namespace nibble::io {
namespace {

namespace fs = std::filesystem;
constexpr uint64_t kMaxConfig = 1 << 20, kMaxIndex = 64 << 20;
constexpr std::string_view kState = ".quant_state.bitsandbytes__";

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() > end.size() && text.substr(text.size() - end.size()) == end;
}

class SafetensorsSource : public WeightSource {
 public:
  explicit SafetensorsSource(std::vector<std::shared_ptr<const SafetensorsFile>> files)
      : files_(std::move(files)) {
    for (const auto& file : files_)
      for (const SafetensorsEntry& e : file->entries)
        require(entries_.emplace(e.name, Located{file.get(), &e}).second, file->map->path(),
                "the tensor \"{}\" is in two shards", e.name);
    group();
  }

  bool has(const std::string& name) const override { return weights_.contains(name); }
  std::vector<WeightInfo> list() const override { return list_; }

  quant::Weight read(const std::string& name) const override {
    const auto it = weights_.find(name);
    if (it == weights_.end()) fail_missing(files_[0]->map->path(), name, list_);
    const Located& at = entries_.at(name);
    const std::string where = place(at);
    if (!it->second.state.empty()) return read_bnb4(parts(), name, it->second.state, where);
    if (it->second.int8) return read_bnb8(parts(), name, where);
    const std::string& type = at.entry->dtype;
    require(type == "F32" || type == "F16" || type == "BF16", where,
            "is {}; weights are F32, F16 or BF16, or 4- and 8-bit ones of bitsandbytes", type);
    return quant::dense_weight(at.file->tensor(name));
  }

  void forget(const std::string& name) const override {
    const auto it = weights_.find(name);
    if (it == weights_.end()) return;
    for (const std::string& part : it->second.parts) {
      const Located& at = entries_.at(part);
      at.file->map->forget(at.entry->data);
    }
  }

 private:
  struct Located {
    const SafetensorsFile* file;
    const SafetensorsEntry* entry;
  };
  struct Group {
    std::vector<std::string> parts;  // itself first
    std::string state;               // name of the quant_state tensor, of a bnb-4bit weight
    bool int8 = false;
  };

  bool has_entry(const std::string& name) const { return entries_.contains(name); }

  static std::string place(const Located& at) {
    return fs::path(at.file->map->path()).filename().string() + ": " + at.entry->name;
  }

  BnbParts parts() const {
    return {[this](const std::string& name) {
              return has_entry(name) ? entries_.at(name).file->tensor(name) : Tensor();
            },
            [this](const std::string& name) { return bytes(name); }};
  }

  Tensor bytes(const std::string& name) const {
    const auto it = entries_.find(name);
    if (it == entries_.end()) return {};
    const auto data = it->second.entry->data;
    return Tensor::borrow(data.data(), {static_cast<int64_t>(data.size())}, kU8, it->second.file->map);
  }

  // Finds which tensors are parts of a quantized weight; everything else is a weight of its own.
  void group() {
    std::unordered_map<std::string, std::string> owner;  // part → weight
    for (const auto& [name, at] : entries_) {
      if (const size_t i = name.find(kState); i != std::string::npos) {
        const std::string weight = name.substr(0, i);
        require(has_entry(weight), at.file->map->path(), "has \"{}\" but not the weight \"{}\"", name,
                weight);
        weights_[weight].state = name;
        for (const std::string& part : {name, weight + ".absmax", weight + ".quant_map",
                                        weight + ".nested_absmax", weight + ".nested_quant_map"})
          owner[part] = weight;
      } else if (ends_with(name, ".SCB")) {
        const std::string module = name.substr(0, name.size() - 4), weight = module + ".weight";
        if (!has_entry(weight) || entries_.at(weight).entry->dtype != "I8") continue;
        weights_[weight].int8 = true;
        owner[name] = owner[module + ".weight_format"] = weight;
      }
    }
    for (const auto& file : files_)
      for (const SafetensorsEntry& e : file->entries)
        if (!owner.contains(e.name)) weights_[e.name].parts.push_back(e.name);
    for (const auto& [part, weight] : owner)
      if (has_entry(part)) weights_[weight].parts.push_back(part);
    for (const auto& file : files_)
      for (const SafetensorsEntry& e : file->entries)
        if (!owner.contains(e.name)) list_.push_back(describe(e, weights_.at(e.name)));
  }

  WeightInfo describe(const SafetensorsEntry& e, const Group& group) const {
    WeightInfo info{e.name, e.shape, e.dtype, 0};
    for (const std::string& part : group.parts)
      info.bytes += static_cast<int64_t>(entries_.at(part).entry->data.size());
    if (group.int8) info.stored = "int8";
    if (!group.state.empty()) {
      const quant::Weight w = read_bnb4(parts(), e.name, group.state, place(entries_.at(e.name)));
      info.shape = w.shape;
      info.stored = w.describe();
    }
    return info;
  }

  std::vector<std::shared_ptr<const SafetensorsFile>> files_;
  std::unordered_map<std::string, Located> entries_;
  std::unordered_map<std::string, Group> weights_;
  std::vector<WeightInfo> list_;
};

std::vector<std::string> shards_of(const std::string& index_path, const fs::path& directory) {
  // Not parse_json: its ordered objects are slow to build from a hundred thousand names.
  const auto index = nlohmann::json::parse(read_file(index_path, kMaxIndex), nullptr, false);
  require(index.is_object() && index.contains("weight_map") && index["weight_map"].is_object(), index_path,
          "is no shard index: a JSON object with \"weight_map\" is expected");
  std::vector<std::string> names;
  for (const auto& [tensor, file] : index["weight_map"].items()) {
    require(file.is_string(), index_path, "\"weight_map\" should map \"{}\" to a file name", tensor);
    names.push_back(file.get<std::string>());
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  require(!names.empty(), index_path, "\"weight_map\" is empty");
  for (std::string& name : names) {
    require(fs::path(name).filename().string() == name && name != "..", index_path,
            "names the shard \"{}\"; shards lie beside the index", name);
    name = (directory / name).string();
    require(fs::exists(name), index_path, "names the shard {}, which is missing; is the download complete?",
            name);
  }
  return names;
}

// What a directory without weights holds instead, for the message.
std::string hint(const fs::path& directory) {
  if (fs::exists(directory / "adapter_config.json"))
    return "; it holds an adapter: give its base as --model and this as --adapter";
  if (fs::exists(directory / "pytorch_model.bin") || fs::exists(directory / "pytorch_model.bin.index.json"))
    return "; PyTorch pickles are not read: save the model as safetensors (save_pretrained does)";
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error))
    if (entry.path().extension() == ".gguf" || entry.path().extension() == ".bin")
      return "; did you mean the file " + entry.path().string() + "?";
  return "";
}

std::vector<std::string> weight_files(const fs::path& directory) {
  const std::string single = (directory / "model.safetensors").string(), index = single + ".index.json";
  if (fs::exists(single)) return {single};
  if (fs::exists(index)) return shards_of(index, directory);
  fail(directory.string(), "holds no model.safetensors and no model.safetensors.index.json{}",
       hint(directory));
}

// Transformers 5 writes rope_parameters; every reader here sees the older rope_theta and rope_scaling.
void add_classic_rope_keys(Json& config) {
  if (!config.contains("rope_parameters") || !config["rope_parameters"].is_object()) return;
  const Json rope = config["rope_parameters"];
  if (!config.contains("rope_theta") && rope.contains("rope_theta"))
    config["rope_theta"] = rope["rope_theta"];
  if (config.contains("rope_scaling") && !config["rope_scaling"].is_null()) return;
  const bool plain = !rope.contains("rope_type") || rope["rope_type"] == "default";
  config["rope_scaling"] = plain ? Json() : rope;
}

// What the weights say they were made from. Names that are no hashes are let go: they match no model.
std::vector<std::string> recorded_sources(const SafetensorsFile& file) {
  constexpr size_t kMost = 64;
  const auto found = file.metadata.find(kSourcesKey);
  if (found == file.metadata.end()) return {};
  std::vector<std::string> hashes;
  for (const std::string& hash : split(found->second, ' '))
    if (hash.size() == 32 && hashes.size() < kMost) hashes.push_back(hash);
  return hashes;
}

void refuse_other_quantization(const Json& config, const std::string& path) {
  if (!config.contains("quantization_config") || !config["quantization_config"].is_object()) return;
  const Json& q = config["quantization_config"];
  const bool flags =
      json_get<bool>(q, "load_in_4bit", false, path) || json_get<bool>(q, "load_in_8bit", false, path);
  const auto method = json_get<std::string>(q, "quant_method", flags ? "bitsandbytes" : "unnamed", path);
  require(method == "bitsandbytes", path,
          "the checkpoint is quantized with {}, which cannot be read; use the original checkpoint, a "
          "bitsandbytes one or a GGUF",
          method);
}

}  // namespace

Json read_hugging_face_config(const std::string& config_path) {
  Json config = parse_json(read_file(config_path, kMaxConfig), config_path);
  require(config.is_object(), config_path, "should be a JSON object");
  refuse_other_quantization(config, config_path);
  add_classic_rope_keys(config);
  return config;
}

ModelFiles open_hugging_face(const std::string& path) {
  const bool directory = fs::is_directory(path);
  const fs::path folder = directory ? fs::path(path) : fs::path(path).parent_path();
  const std::string config_path = (folder / "config.json").string();
  if (!fs::exists(config_path)) {
    require(!directory, path, "holds no config.json{}", hint(folder));
    fail(path, "config.json is expected beside it and is not there");
  }
  ModelFiles files;
  files.path = path;
  files.container = "safetensors";
  files.config = read_hugging_face_config(config_path);
  files.files = directory ? weight_files(folder) : std::vector<std::string>{path};
  std::vector<std::shared_ptr<const SafetensorsFile>> opened;
  for (const std::string& file : files.files)
    opened.push_back(std::make_shared<const SafetensorsFile>(SafetensorsFile::open(file)));
  files.sources = recorded_sources(*opened.front());
  files.weights = with_canonical_names(std::make_shared<SafetensorsSource>(std::move(opened)), files.config);
  return files;
}

}  // namespace nibble::io
