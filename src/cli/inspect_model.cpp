// nibble inspect model: what is in a model's files, and what a format would do to it.
#include <map>

#include "backend/kernels/quantize.h"
#include "base/json.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "cli/weight_error.h"

namespace nibble::cli {
namespace {

constexpr const char* kSummary[] = {"model_type",
                                    "num_hidden_layers",
                                    "hidden_size",
                                    "intermediate_size",
                                    "num_attention_heads",
                                    "num_key_value_heads",
                                    "head_dim",
                                    "vocab_size",
                                    "max_position_embeddings",
                                    "rope_theta",
                                    "rope_scaling",
                                    "rms_norm_eps",
                                    "tie_word_embeddings",
                                    "attention_bias",
                                    "sliding_window"};

double bits_of(int64_t bytes, int64_t values) {
  return values == 0 ? 0 : 8.0 * static_cast<double>(bytes) / static_cast<double>(values);
}

struct TensorRow {
  io::WeightInfo info;
  bool measured = false;
  WeightError error;
};

std::string table(const std::vector<TensorRow>& rows, bool errors) {
  size_t width = 6;
  for (const TensorRow& r : rows) width = std::max(width, r.info.name.size());
  std::string out = fmt::format("{:<{}}  {:>16}  {:<36} {:>10} {:>7}{}\n", "tensor", width, "shape", "stored",
                                "size", "bits", errors ? "   error   worst   SNR dB" : "");
  for (const TensorRow& r : rows) {
    out += fmt::format("{:<{}}  {:>16}  {:<36} {:>10} {:>7.3f}", r.info.name, width, r.info.shape.str(),
                       r.info.stored, show_bytes(static_cast<double>(r.info.bytes)),
                       bits_of(r.info.bytes, r.info.shape.numel()));
    if (r.measured)
      out += fmt::format("  {:.4f}  {:.4f}  {:>7.2f}", r.error.relative(), r.error.max_abs, r.error.snr_db());
    out += "\n";
  }
  return out;
}

}  // namespace

int run_inspect_model(const Arguments& arguments) {
  ModelOptions model;
  bool json = false;
  Options cli(
      "inspect model",
      "Lists tensors, formats and sizes; with --quantize also the error that format makes in each matrix.",
      "nibble inspect model --model model.gguf --quantize nf4 --double-quant");
  model.declare(cli, false);
  cli.flag("--json", json, "one JSON document");
  cli.footer(
      "JSON: {\"path\", \"container\", \"hash\", \"config\": {…}, \"parameters\", \"bytes\", "
      "\"bits_per_weight\",\n"
      "\"tensors\": [{\"name\", \"shape\", \"stored\", \"bytes\", \"error\"}], \"error\": {…}}.");
  if (!cli.parse(arguments)) return 0;
  model.apply();
  const quant::QuantizeSpec spec =
      quant::parse_quantize(model.quantize, model.double_quant, model.block_size);

  const io::ModelFiles files = io::open_model(model.model);
  backend::Stream stream(host_allocator());
  std::vector<TensorRow> rows;
  WeightError total;
  int64_t values = 0, bytes = 0;
  std::map<std::string, std::pair<int64_t, int64_t>> by_type;  // stored → count, bytes
  for (const io::WeightInfo& info : files.weights->list()) {
    TensorRow row{info, false, {}};
    values += info.shape.numel();
    bytes += info.bytes;
    ++by_type[info.stored].first;
    by_type[info.stored].second += info.bytes;
    if (spec.format != nullptr && is_linear(info)) {
      const quant::Weight w = files.weights->read(info.name);
      row.error =
          measure_error(stream, w, backend::convert_weight(stream, w, spec, kF32, info.name), info.name);
      row.measured = true;
      total.add(row.error);
      files.weights->forget(info.name);
    }
    rows.push_back(std::move(row));
  }

  Json config = Json::object();
  for (const char* key : kSummary)
    if (files.config.contains(key) && !files.config[key].is_null()) config[key] = files.config[key];
  if (json) {
    Json tensors = Json::array();
    for (const TensorRow& r : rows) {
      Json shape = Json::array();
      for (int i = 0; i < r.info.shape.rank(); ++i) shape.push_back(r.info.shape[i]);
      tensors.push_back(
          {{"name", r.info.name}, {"shape", shape}, {"stored", r.info.stored}, {"bytes", r.info.bytes}});
      if (r.measured) tensors.back()["error"] = r.error.json();
    }
    Json document = {{"path", files.path},
                     {"container", files.container},
                     {"hash", files.hash()},
                     {"config", config},
                     {"parameters", values},
                     {"bytes", bytes},
                     {"bits_per_weight", bits_of(bytes, values)},
                     {"tensors", tensors}};
    if (spec.format != nullptr) document["error"] = total.json();
    print_json(document);
    return 0;
  }
  std::string text = table(rows, spec.format != nullptr) + "\n";
  for (const auto& [key, value] : config.items()) {
    std::string shown = value.dump();
    if (shown.size() > 80) shown = shown.substr(0, 77) + "...";
    text += fmt::format("{:<24} {}\n", key, shown);
  }
  for (const auto& [type, sum] : by_type)
    text +=
        fmt::format("{:<24} {} tensors, {}\n", type, sum.first, show_bytes(static_cast<double>(sum.second)));
  text += fmt::format("{:<24} {} parameters in {} ({}, {:.3f} bits each)\n", "total", show_count(values),
                      show_bytes(static_cast<double>(bytes)), files.container, bits_of(bytes, values));
  if (spec.format != nullptr)
    text += fmt::format("{:<24} {:.4f} of the matrices' norm, {:.2f} dB\n", "error of " + spec.name(),
                        total.relative(), total.snr_db());
  print(text);
  return 0;
}

}  // namespace nibble::cli
