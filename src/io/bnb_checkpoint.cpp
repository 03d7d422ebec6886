#include "io/bnb_checkpoint.h"

#include <fmt/format.h>
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "io/bnb_parts.h"
#include "io/safetensors.h"

namespace nibble::io {
namespace {

namespace fs = std::filesystem;
using Declared = SafetensorsWriter::Declared;

const char* torch_name(DType t) { return t == kF32 ? "float32" : t == kF16 ? "float16" : "bfloat16"; }

bool is_dense(const CheckpointItem& item) {
  return item.format == nullptr || item.format->kind == quant::Kind::kDense;
}
bool is_int8(const CheckpointItem& item) {
  return !is_dense(item) && item.format->kind == quant::Kind::kInt8Row;
}

std::string module_of(const std::string& name) {
  return name.substr(0, name.size() - std::string_view(".weight").size());
}

// What the item will be, before it is made: the quant_state's length depends on the offset, so it is declared
// at a fixed one.
constexpr int64_t kStateBytes = 256;

// The parts in the order they are written. Those of 4 bytes come first and the state is padded, so that every
// weight begins at a multiple of 4 and readers can use the mapping as it is.
std::vector<Declared> parts_of(const CheckpointItem& item) {
  const std::string& n = item.name;
  if (is_dense(item)) return {{n, item.dtype, item.shape}};
  const int64_t numel = item.shape.numel();
  if (is_int8(item)) return {{module_of(n) + ".SCB", kF32, {item.shape[0]}}, {n, kI8, item.shape}};
  const int64_t blocks = (numel + item.block - 1) / item.block;
  std::vector<Declared> out = {{n + ".quant_map", kF32, {16}}};
  if (item.double_quant) {
    out.push_back({n + ".nested_absmax", kF32, {(blocks + 255) / 256}});
    out.push_back({n + ".nested_quant_map", kF32, {256}});
  } else {
    out.push_back({n + ".absmax", kF32, {blocks}});
  }
  const int64_t codes = (numel + 1) / 2;
  out.push_back({n, kU8, {codes, 1}});
  if (item.double_quant) out.push_back({n + ".absmax", kU8, {blocks}});
  const int64_t odd = (codes + (item.double_quant ? blocks : 0)) % 8;
  out.push_back({n + ".quant_state.bitsandbytes__" + item.format->name, kU8, {kStateBytes + (8 - odd) % 8}});
  return out;
}

int64_t bytes_of(const std::vector<Declared>& parts) {
  int64_t sum = 0;
  for (const Declared& d : parts) sum += d.shape.numel() * dtype_bytes(d.dtype);
  return sum;
}

void check(const CheckpointItem& item, const std::string& where) {
  if (is_dense(item)) {
    require(item.dtype == kF32 || item.dtype == kF16 || item.dtype == kBF16, where,
            "{}: a dense tensor is f32, f16 or bf16, not {}", item.name, dtype_name(item.dtype));
    return;
  }
  const std::string format = item.format->name;
  require(format == "nf4" || format == "fp4" || format == "int8", where,
          "{}: Transformers loads nf4, fp4 and int8 checkpoints; {} lives in nibble alone, quantize to it on "
          "loading (--quantize {})",
          item.name, format, format);
  require(item.name.ends_with(".weight") && item.shape.rank() == 2, where,
          "{} {} is no matrix of a linear layer", item.name, item.shape.str());
}

void write_tensor(SafetensorsWriter& out, const Tensor& t) {
  out.write({t.raw(), static_cast<size_t>(t.bytes())});
}

void write_weight(SafetensorsWriter& out, const CheckpointItem& item, const quant::Weight& w,
                  const std::string& where) {
  const bool fits =
      w.defined() && w.shape == item.shape && w.interleaved_heads == 0 &&
      (is_dense(item) ? w.is_dense() && w.dense.dtype() == item.dtype
                      : w.format == item.format && w.block == (is_int8(item) ? w.block : item.block) &&
                            w.double_quantized() == item.double_quant);
  require(fits, where, "{} was announced as {} {} but came as {} {}", item.name,
          is_dense(item) ? dtype_name(item.dtype) : item.format->name, item.shape.str(), w.describe(),
          w.shape.str());
  quant::require_consistent(w, item.name);
  if (is_dense(item)) return write_tensor(out, w.dense);
  if (is_int8(item)) {
    write_tensor(out, w.absmax);
    return write_tensor(out, w.codes);
  }
  out.write(std::as_bytes(std::span(w.format->codebook->values)));
  if (w.double_quantized()) {
    write_tensor(out, w.nested_absmax);
    write_tensor(out, w.nested_map);
  } else {
    write_tensor(out, w.absmax);
  }
  write_tensor(out, w.codes);
  if (w.double_quantized()) write_tensor(out, w.absmax_codes);
  quant::Weight named = w;
  named.logical_dtype = kF32;  // what decoding gives: in bf16 every value would be rounded once more
  std::string state = bnb_quant_state(named);
  const int64_t size = parts_of(item).back().shape[0];
  require(static_cast<int64_t>(state.size()) <= size, where, "{}: a quant_state of {} bytes", item.name,
          state.size());
  state.resize(static_cast<size_t>(size), ' ');
  out.write(std::as_bytes(std::span(state)));
}

// Which items go into which file: in order, a new file where the limit would be passed.
std::vector<std::vector<const CheckpointItem*>> cut(const std::vector<CheckpointItem>& items,
                                                    int64_t shard_bytes) {
  std::vector<std::vector<const CheckpointItem*>> shards(1);
  int64_t size = 0;
  for (const CheckpointItem& item : items) {
    const int64_t bytes = bytes_of(parts_of(item));
    if (size > 0 && size + bytes > shard_bytes) {
      shards.emplace_back();
      size = 0;
    }
    size += bytes;
    shards.back().push_back(&item);
  }
  return shards;
}

Json quantization_config(const std::vector<CheckpointItem>& items) {
  const CheckpointItem* first = nullptr;
  std::set<std::string> dense;  // linear layers that stay dense, as Transformers wants them listed
  for (const CheckpointItem& item : items) {
    if (is_dense(item)) continue;
    if (first == nullptr) first = &item;
    require(item.format == first->format && item.block == first->block &&
                item.double_quant == first->double_quant,
            item.name, "is {} where the others are {}: Transformers' checkpoints hold one format",
            item.format->name, first->format->name);
  }
  if (first == nullptr) return nullptr;
  for (const CheckpointItem& item : items)
    if (is_dense(item) && item.shape.rank() == 2 && (item.linear || item.name.ends_with("_proj.weight")))
      dense.insert(module_of(item.name));
  dense.insert("lm_head");
  const bool eight = is_int8(*first);
  Json c = {{"quant_method", "bitsandbytes"},
            {"_load_in_4bit", !eight},
            {"_load_in_8bit", eight},
            {"load_in_4bit", !eight},
            {"load_in_8bit", eight},
            {"bnb_4bit_compute_dtype", torch_name(first->dtype)},
            {"bnb_4bit_quant_storage", "uint8"},
            {"bnb_4bit_quant_type", eight ? "fp4" : first->format->name},
            {"bnb_4bit_use_double_quant", first->double_quant},
            {"llm_int8_enable_fp32_cpu_offload", false},
            {"llm_int8_has_fp16_weight", false},
            {"llm_int8_skip_modules", dense},
            {"llm_int8_threshold", 6.0}};
  return c;
}

// GGUF files carry llama3's frequency factors as numbers; config.json has room for the rule alone. The
// published models share all but the factor, which is the largest of the numbers.
Json with_llama3_scaling(Json config, const std::string& path) {
  if (!config.contains("rope_scaling") || !config["rope_scaling"].is_object()) return config;
  if (config["rope_scaling"].value("rope_type", "") != "factors") return config;
  const auto factors = json_get<std::vector<double>>(config["rope_scaling"], "factors", path);
  const double theta = json_get<double>(config, "rope_theta", path),
               pairs = static_cast<double>(factors.size());
  const double factor = *std::max_element(factors.begin(), factors.end());
  for (const double original : {8192.0, 4096.0, 2048.0, 64.0}) {
    bool same = true;
    for (size_t i = 0; i < factors.size() && same; ++i) {
      const double wave = 2 * M_PI * std::pow(theta, static_cast<double>(i) / pairs);
      const double smooth = std::min(1.0, std::max(0.0, (original / wave - 1) / 3));
      same = std::abs(factors[i] - 1 / ((1 - smooth) / factor + smooth)) < 1e-4 * factors[i];
    }
    if (!same) continue;
    config["rope_scaling"] = {{"rope_type", "llama3"},
                              {"factor", factor},
                              {"low_freq_factor", 1.0},
                              {"high_freq_factor", 4.0},
                              {"original_max_position_embeddings", static_cast<int64_t>(original)}};
    return config;
  }
  fail(path,
       "its rotary frequency factors are not those of llama3's rule, and config.json cannot say them "
       "otherwise");
}

// The names of the weight files, and what config.json and the index are called.
std::vector<std::string> shard_names(size_t count) {
  std::vector<std::string> names;
  for (size_t i = 0; i < count; ++i)
    names.push_back(count == 1 ? "model.safetensors"
                               : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, count));
  return names;
}

// Removes what was written unless all of it was.
class Unfinished {
 public:
  explicit Unfinished(const std::string& directory) : directory_(directory), made_(!fs::exists(directory)) {
    make_directories(directory);
  }
  ~Unfinished() {
    std::error_code ignored;
    if (done_) return;
    for (const std::string& f : files_) fs::remove(f, ignored);
    if (made_) fs::remove(directory_, ignored);
  }
  // The path of a file that is about to be written.
  const std::string& add(const std::string& name) { return files_.emplace_back(directory_ + "/" + name); }
  void done() { done_ = true; }

 private:
  std::string directory_;
  std::vector<std::string> files_;
  bool made_, done_ = false;
};

}  // namespace

CheckpointReport write_bnb_checkpoint(const std::string& directory, const std::vector<CheckpointItem>& items,
                                      Json config, const CheckpointCompanions& companions,
                                      const std::function<void(int64_t done, int64_t total)>& progress,
                                      int64_t shard_bytes) {
  require(!items.empty(), directory, "a checkpoint without tensors cannot be written");
  for (const CheckpointItem& item : items) check(item, directory);
  const auto shards = cut(items, shard_bytes);
  const std::vector<std::string> names = shard_names(shards.size());
  std::vector<std::string> taken = {"config.json", "model.safetensors", "model.safetensors.index.json"};
  taken.insert(taken.end(), names.begin(), names.end());
  for (const NamedFile& f : companions.files) taken.push_back(f.name);
  for (const std::string& name : taken)
    require(!fs::exists(fs::path(directory) / name), directory,
            "holds a {} already; choose another --out or remove it", name);

  int64_t total = 0;
  for (const CheckpointItem& item : items) total += bytes_of(parts_of(item));
  Unfinished written(directory);
  const uint64_t free = free_disk_bytes(directory);
  require(free > static_cast<uint64_t>(total), directory, "{} bytes are needed here but {} are free", total,
          free);
  const Json quantization = quantization_config(items);
  config = with_llama3_scaling(std::move(config), directory);
  config.erase("quantization_config");
  config.erase("torch_dtype");
  if (!quantization.is_null()) config["quantization_config"] = quantization;
  config["dtype"] = torch_name(items.front().dtype);

  CheckpointReport report;
  nlohmann::json weight_map =
      nlohmann::json::object();  // sorted, and quick to build however many names there are
  std::map<std::string, std::string> metadata = {{"format", "pt"}};
  if (!companions.sources.empty())
    metadata[kSourcesKey] = fmt::format("{}", fmt::join(companions.sources, " "));
  int64_t done = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    std::vector<Declared> declared;
    std::vector<std::string> formats;  // one byte each: at the end, where they move nothing off its alignment
    for (const CheckpointItem* item : shards[i]) {
      for (const Declared& d : parts_of(*item)) declared.push_back(d);
      if (is_int8(*item)) formats.push_back(module_of(item->name) + ".weight_format");
    }
    for (const std::string& f : formats) declared.push_back({f, kU8, Shape{}});
    for (const Declared& d : declared) weight_map[d.name] = names[i];

    SafetensorsWriter out(written.add(names[i]), declared, metadata);
    for (const CheckpointItem* item : shards[i]) {
      write_weight(out, *item, item->make(), directory);
      done += bytes_of(parts_of(*item));
      report.quantized += !is_dense(*item);
      if (progress) progress(done, total);
    }
    out.write(std::vector<std::byte>(formats.size()));
    out.commit();
  }
  report.tensors = static_cast<int64_t>(items.size());
  report.bytes = total;
  if (shards.size() > 1) {
    const nlohmann::json index = {{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}};
    write_file_atomic(written.add("model.safetensors.index.json"), index.dump(1) + "\n");
  }
  for (const NamedFile& f : companions.files) write_file_atomic(written.add(f.name), f.bytes);
  write_file_atomic(written.add("config.json"), config.dump(2) + "\n");  // last: without it this is no model
  written.done();
  return report;
}

}  // namespace nibble::io
