// nibble inspect adapter: rank, targets and norms of a LoRA adapter, module by module.
#include <fmt/ranges.h>

#include <cmath>
#include <set>

#include "base/json.h"
#include "base/text.h"
#include "cli/command.h"
#include "cli/commands.h"
#include "io/peft_adapter.h"

namespace nibble::cli {
namespace {

double at(const Tensor& t, int64_t i) {
  if (t.dtype() == kF32) return double{t.data<float>()[i]};
  return double{t.dtype() == kF16 ? to_float(t.data<Float16>()[i]) : to_float(t.data<BFloat16>()[i])};
}

double norm(const Tensor& t) {
  double sum = 0;
  for (int64_t i = 0; i < t.numel(); ++i) sum += at(t, i) * at(t, i);
  return std::sqrt(sum);
}

// ‖B·A‖ without making it: ‖BA‖² = Σ (BᵀB) ∘ (AAᵀ), both r × r.
double product_norm(const Tensor& a, const Tensor& b) {
  const int64_t r = a.size(0), in = a.size(1), out = b.size(0);
  double sum = 0;
  for (int64_t i = 0; i < r; ++i)
    for (int64_t j = 0; j <= i; ++j) {
      double aa = 0, bb = 0;
      for (int64_t k = 0; k < in; ++k) aa += at(a, i * in + k) * at(a, j * in + k);
      for (int64_t k = 0; k < out; ++k) bb += at(b, k * r + i) * at(b, k * r + j);
      sum += (i == j ? 1 : 2) * aa * bb;
    }
  return std::sqrt(std::max(sum, 0.0));
}

struct PairRow {
  std::string module;
  int64_t rank, in, out;
  double scale, a, b, update;
};

}  // namespace

int run_inspect_adapter(const Arguments& arguments) {
  std::string directory;
  bool json = false;
  Options cli(
      "inspect adapter",
      "Shows an adapter's rank, targets and, for each module, the norms of A, B and of the update s·B·A.",
      "nibble inspect adapter --adapter out/run");
  cli.add("--adapter DIR", directory, "LoRA adapter in PEFT's format", true);
  cli.flag("--json", json, "one JSON document");
  cli.footer(
      "JSON: {\"config\": {…}, \"parameters\", \"modules\": [{\"module\", \"rank\", \"in\", \"out\", "
      "\"scale\",\n"
      "\"norm_a\", \"norm_b\", \"norm_update\"}], \"saved\": names of what is saved whole, \"manifest\"}.");
  if (!cli.parse(arguments)) return 0;

  const io::AdapterFile file = io::read_adapter(directory);
  const io::AdapterConfig& c = file.config;
  std::vector<PairRow> rows;
  std::set<std::string> targets;
  int64_t parameters = 0;
  for (const io::AdapterPair& p : file.pairs) {
    const double scale = io::scale_of(c, p.module);
    rows.push_back({p.module, p.a.size(0), p.a.size(1), p.b.size(0), scale, norm(p.a), norm(p.b),
                    std::abs(scale) * product_norm(p.a, p.b)});
    parameters += p.a.numel() + p.b.numel();
    targets.insert(p.module.substr(p.module.rfind('.') + 1));
  }
  std::vector<std::string> saved;  // of a classifier: its head
  for (const auto& [name, value] : file.saved) {
    saved.push_back(name);
    parameters += value.numel();
  }
  if (json) {
    Json modules = Json::array();
    for (const PairRow& r : rows)
      modules.push_back({{"module", r.module},
                         {"rank", r.rank},
                         {"in", r.in},
                         {"out", r.out},
                         {"scale", r.scale},
                         {"norm_a", r.a},
                         {"norm_b", r.b},
                         {"norm_update", r.update}});
    print_json({{"config",
                 {{"r", c.r},
                  {"lora_alpha", c.lora_alpha},
                  {"lora_dropout", c.lora_dropout},
                  {"use_rslora", c.use_rslora},
                  {"target_modules", targets},
                  {"base_model", c.base_model}}},
                {"parameters", parameters},
                {"modules", modules},
                {"saved", saved},
                {"manifest", file.manifest}});
    return 0;
  }
  size_t width = 6;
  for (const PairRow& r : rows) width = std::max(width, r.module.size());
  std::string text = fmt::format("{:<{}}  {:>5} {:>14} {:>9} {:>10} {:>10} {:>10}\n", "module", width, "rank",
                                 "out × in", "scale", "|A|", "|B|", "|sBA|");
  for (const PairRow& r : rows)
    text += fmt::format("{:<{}}  {:>5} {:>14} {:>9.4g} {:>10.4g} {:>10.4g} {:>10.4g}\n", r.module, width,
                        r.rank, fmt::format("{} × {}", r.out, r.in), r.scale, r.a, r.b, r.update);
  std::string list;
  for (const std::string& t : targets) list += (list.empty() ? "" : ", ") + t;
  text += fmt::format("\nr {}  alpha {}  dropout {}{}  targets {}\n{} modules, {} parameters, base {}\n", c.r,
                      c.lora_alpha, c.lora_dropout, c.use_rslora ? "  rank-stabilized" : "", list,
                      rows.size(), show_count(parameters), c.base_model.empty() ? "not named" : c.base_model);
  if (!saved.empty()) text += fmt::format("saved whole: {}\n", fmt::join(saved, ", "));
  if (!file.manifest.is_null()) text += "manifest " + file.manifest.dump(2) + "\n";
  print(text);
  return 0;
}

}  // namespace nibble::cli
