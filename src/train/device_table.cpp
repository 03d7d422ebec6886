#include "train/device_table.h"

#include <fmt/format.h>

#include "base/json.h"
#include "base/text.h"

namespace nibble::train {
namespace {

struct Size {
  const char* name;
  int64_t width, layers, heads, feed_forward;
};
// Touvron et al. 2023, table 2; the widths of the feed-forward are those of the released checkpoints.
constexpr Size kSizes[] = {
    {"LLaMA 7B", 4096, 32, 32, 11008},
    {"LLaMA 13B", 5120, 40, 40, 13824},
    {"LLaMA 33B", 6656, 60, 52, 17920},
    {"LLaMA 65B", 8192, 80, 64, 22016},
};

struct Method {
  const char* name;
  std::vector<std::string> assignments;
};
const Method kMethods[] = {
    {"full, bf16 compute", {"method=full", "quantize=none"}},
    {"LoRA, 16-bit base", {"quantize=none"}},
    {"QLoRA, NF4 + double quantization", {"quantize=nf4", "double_quant=true"}},
};

constexpr int64_t kTokens = 512;
constexpr int64_t kDevices[] = {24, 48, 80};  // GB

Json config_of(const Size& size) {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"vocab_size", 32000},
          {"hidden_size", size.width},
          {"num_hidden_layers", size.layers},
          {"num_attention_heads", size.heads},
          {"intermediate_size", size.feed_forward},
          {"max_position_embeddings", 2048},
          {"rms_norm_eps", 1e-6},
          {"tie_word_embeddings", false}};
}

bool fits(const StepPlan& plan, int64_t gigabytes) { return plan.total() <= gigabytes * 1'000'000'000; }

}  // namespace

std::vector<DeviceRow> paper_plans() {
  std::vector<DeviceRow> rows;
  for (const Size& size : kSizes)
    for (const Method& method : kMethods) {
      Recipe recipe;
      for (const char* assignment : {"lora_r=64", "optim=paged_adamw", "gradient_checkpointing=block",
                                     "per_device_train_batch_size=1"})
        set_field(recipe, assignment);
      for (const std::string& assignment : method.assignments) set_field(recipe, assignment);
      const io::ModelFiles files = io::shapes_of(size.name, config_of(size));
      rows.push_back({size.name, method.name,
                      plan_step(files, recipe, {.tokens = kTokens, .sequences = 1}, Checkpointing::kBlock)});
    }
  return rows;
}

std::string device_table(const std::vector<DeviceRow>& rows) {
  std::string text = fmt::format(
      "one sequence of {} tokens, r = 64 on all linears, paged AdamW, block checkpointing\n{:<11} {:<33} "
      "{:>9}",
      kTokens, "model", "method", "memory");
  for (const int64_t device : kDevices) text += fmt::format(" {:>6}", fmt::format("{} GB", device));
  text += fmt::format("  {}\n", "paged to a file");
  for (const DeviceRow& row : rows) {
    text += fmt::format("{:<11} {:<33} {:>9}", row.model, row.method,
                        show_bytes(static_cast<double>(row.plan.total())));
    for (const int64_t device : kDevices)
      text += fmt::format(" {:>6}", fits(row.plan, device) ? "fits" : "-");
    text += fmt::format("  {}\n", show_bytes(static_cast<double>(row.plan.page_file_bytes)));
  }
  return text;
}

Json device_json(const std::vector<DeviceRow>& rows) {
  Json list = Json::array();
  for (const DeviceRow& row : rows) {
    Json fit = Json::object();
    for (const int64_t device : kDevices) fit[std::to_string(device)] = fits(row.plan, device);
    list.push_back({{"model", row.model},
                    {"method", row.method},
                    {"fits_gigabytes", fit},
                    {"plan", plan_json(row.plan)}});
  }
  return list;
}

}  // namespace nibble::train
