// nibble quantize: any model that nibble reads becomes a bitsandbytes checkpoint that Transformers loads.
#include <algorithm>
#include <cstdio>
#include <map>

#include "backend/kernels/quantize.h"
#include "base/json.h"
#include "base/parallel.h"
#include "base/process.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "cli/weight_error.h"
#include "io/bnb_checkpoint.h"
#include "models/model.h"
#include "text/export.h"

namespace nibble::cli {
namespace {

struct LinearLayer {
  bool quantize;
  nn::Stored stored;
};

// The linear layers, as the model itself says; it also checks every name and shape before anything is
// written.
std::map<std::string, LinearLayer> linear_layers(const io::ModelFiles& files) {
  const auto meta = make_meta_allocator();
  backend::Stream stream(*meta);
  const auto model = models::load_model(files, stream, {});
  std::map<std::string, LinearLayer> layers;
  model->visit_linears([&](nn::Linear& linear) {
    const bool quantize = !linear.stays_dense() && !nn::is_output_head(linear.name());
    layers[linear.name() + ".weight"] = {quantize, linear.stored()};
  });
  model->visit_heads([&](nn::Linear& head) { layers[head.name() + ".weight"] = {false, head.stored()}; });
  return layers;
}

// Dense tensors keep f32 where the source has it and are bf16 otherwise, unless --dtype says which.
DType dense_dtype(const std::optional<std::string>& wanted, const io::ModelFiles& files) {
  if (wanted) {
    if (*wanted != "f32" && *wanted != "bf16")
      throw UsageError("--dtype", fmt::format("expected bf16 or f32, got '{}'", *wanted));
    return *wanted == "f32" ? kF32 : kBF16;
  }
  for (const io::WeightInfo& info : files.weights->list())
    if (info.shape.rank() == 2) return info.stored == "F32" ? kF32 : kBF16;
  return kBF16;
}

}  // namespace

int run_quantize(const Arguments& arguments) {
  std::string path, out, tokenizer, format = "nf4";
  std::optional<std::string> dtype;
  bool double_quant = true, json = false;
  int64_t block = 64, threads = 0;
  Options cli("quantize",
              "Writes a model as a bitsandbytes checkpoint (nf4, fp4 or int8) that Transformers, PEFT and "
              "nibble load: one pass, "
              "one weight in memory at a time.",
              "nibble quantize --model model.gguf --out model-nf4 --quantize nf4 --double-quant");
  cli.add("--model PATH", path, "model: a directory, .gguf, .safetensors or llama2.c .bin", true);
  cli.add("--out DIR", out, "where the checkpoint is written; it must not hold a model", true);
  cli.add("--quantize FORMAT", format, "nf4, fp4 or int8");
  cli.flag("--double-quant,!--no-double-quant", double_quant, "quantize the block scales as well");
  cli.add("--block-size N", block, "values that share a scale");
  cli.add("--dtype bf16|f32", dtype,
          "type of embeddings, norms and head (default: f32 where the source has f32, else bf16)");
  cli.add("--tokenizer PATH", tokenizer, "tokenizer, when it is not beside the weights");
  cli.add("--threads N", threads, "threads; 0 is one per processor");
  cli.flag("--json", json, "one JSON document");
  cli.footer(
      "JSON: {\"out\", \"tensors\", \"quantized\", \"bytes\", \"bits_per_weight\", \"error\": {…}, "
      "\"worst\", \"tokenizer\"}.");
  if (!cli.parse(arguments)) return 0;
  if (threads < 0 || threads > 4096) throw UsageError("--threads", "expected a number from 0 to 4096");
  if (format != "nf4" && format != "fp4") double_quant = false;
  const quant::QuantizeSpec spec = quant::parse_quantize(format, double_quant, block);
  if (spec.format == nullptr || (format != "nf4" && format != "fp4" && format != "int8"))
    throw UsageError(
        "quantize",
        fmt::format("Transformers loads nf4, fp4 and int8 checkpoints, not {}; other formats are made on "
                    "loading (--quantize of the command that uses the model)",
                    format));
  set_threads(static_cast<int>(threads));

  const io::ModelFiles files = io::open_model(path);
  const std::map<std::string, LinearLayer> linears = linear_layers(files);
  const DType dense = dense_dtype(dtype, files);
  catch_interrupts();
  backend::Stream stream(host_allocator());
  WeightError total;
  double worst = -1;
  std::string worst_name;
  int64_t linear_values = 0, linear_bytes = 0;
  std::vector<io::CheckpointItem> items;
  for (const io::WeightInfo& info : files.weights->list()) {
    const auto layer = linears.find(info.name);
    const bool quantize = layer != linears.end() && layer->second.quantize;
    // bitsandbytes holds what it quantizes as [out, in], also where the dense file has [in, out].
    const bool turn =
        quantize && layer->second.stored == nn::Stored::kInOut && files.weights->read(info.name).is_dense();
    io::CheckpointItem item{info.name,
                            turn ? Shape{info.shape[1], info.shape[0]} : info.shape,
                            quantize ? spec.format : nullptr,
                            dense,
                            quantize ? spec.block : 0,
                            quantize && spec.double_quant,
                            {},
                            layer != linears.end()};
    item.make = [&, quantize, turn, name = info.name] {
      if (interrupted()) throw Interrupted("quantize", "stopped; nothing was left in " + out);
      const quant::Weight stored = files.weights->read(name);
      const quant::Weight w = turn ? nn::transposed(stored, host_allocator(), name) : stored;
      quant::Weight held =
          backend::convert_weight(stream, w, quantize ? spec : quant::QuantizeSpec{}, dense, name);
      const WeightError error = measure_error(stream, w, held, name);
      if (quantize) {
        total.add(error);
        linear_values += held.numel();
        linear_bytes += held.stored_bytes();
        if (error.relative() > worst) {
          worst = error.relative();
          worst_name = name;
        }
      }
      files.weights->forget(name);
      return held;
    };
    items.push_back(std::move(item));
  }

  const bool live = stderr_is_terminal();
  const auto progress = [&](int64_t done, int64_t all) {
    if (live)
      std::fprintf(stderr, "\r%3d %% of %s ", static_cast<int>(100 * done / std::max<int64_t>(all, 1)),
                   show_bytes(static_cast<double>(all)).c_str());
  };
  text::TokenizerExport companions = text::export_tokenizer(path, tokenizer);
  const bool with_tokenizer = companions.missing.empty();
  const io::CheckpointReport report = io::write_bnb_checkpoint(
      out, items, files.config, {std::move(companions.files), files.lineage()}, progress);
  if (live) std::fputs("\n", stderr);
  const double bits =
      8.0 * static_cast<double>(linear_bytes) / static_cast<double>(std::max<int64_t>(linear_values, 1));
  if (json) {
    print_json({{"out", out},
                {"tensors", report.tensors},
                {"quantized", report.quantized},
                {"bytes", report.bytes},
                {"bits_per_weight", bits},
                {"error", total.json()},
                {"worst", {{"tensor", worst_name}, {"relative", worst}}},
                {"tokenizer", with_tokenizer}});
    return 0;
  }
  print(fmt::format("{}: {} tensors, {} of them {} ({:.3f} bits a weight), {}\n", out, report.tensors,
                    report.quantized, spec.name(), bits, show_bytes(static_cast<double>(report.bytes))));
  print(
      fmt::format("error of the quantized weights: {:.4f} of their norm ({:.1f} dB), at worst {:.4f} in {}\n",
                  total.relative(), total.snr_db(), worst, worst_name));
  if (!with_tokenizer)
    print(fmt::format(
        "the tokenizer is not in it ({}): give nibble --tokenizer {}, or put a tokenizer.json there "
        "for Transformers\n",
        companions.missing, tokenizer.empty() ? path : tokenizer));
  return 0;
}

}  // namespace nibble::cli
