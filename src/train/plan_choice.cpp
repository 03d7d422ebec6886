// Which checkpointing policy a run takes, and what would make a run fit that does not.
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "base/text.h"
#include "train/plan.h"

namespace nibble::train {
namespace {

struct Change {
  std::string text;  // "gradient_checkpointing=block"
  Recipe recipe;
  double
      cost;  // beyond time (1 is a step of the present recipe): near 0 the same result, above 1 another one
};

// Single changes of the recipe, each with the words the user would type.
std::vector<Change> changes_of(const Recipe& recipe) {
  std::vector<Change> changes;
  const auto add = [&](double cost, const std::vector<std::string>& assignments) {
    Change change{fmt::format("{}", fmt::join(assignments, " ")), recipe, cost};
    for (const std::string& assignment : assignments) set_field(change.recipe, assignment);
    changes.push_back(std::move(change));
  };
  for (const char* policy : {"selective", "block"})
    if (recipe.gradient_checkpointing != policy) add(0, {fmt::format("gradient_checkpointing={}", policy)});
  for (int64_t batch = recipe.per_device_train_batch_size / 2; batch >= 1; batch /= 2) {
    const int64_t times = recipe.per_device_train_batch_size / batch;
    const std::vector<std::string> smaller = {
        fmt::format("per_device_train_batch_size={}", batch),
        fmt::format("gradient_accumulation_steps={}", recipe.gradient_accumulation_steps * times)};
    add(0.1, smaller);
    if (recipe.gradient_checkpointing != "block")
      add(0.2, {smaller[0], smaller[1], "gradient_checkpointing=block"});
  }
  if (recipe.optim == "adamw" || recipe.optim == "adamw_8bit") add(0, {"optim=paged_" + recipe.optim});
  if (recipe.lora() && recipe.quantize != "nf4") add(2, {"quantize=nf4", "double_quant=true"});
  if (recipe.lora() && recipe.adapter.empty())
    for (int64_t r = recipe.lora_r / 2; r >= 4; r /= 2) add(1.5, {fmt::format("lora_r={}", r)});
  if (!recipe.lora())
    add(2, {"method=lora", "quantize=nf4", "double_quant=true", "gradient_checkpointing=block"});
  return changes;
}

StepShape scaled(const StepShape& shape, const Recipe& from, const Recipe& to) {
  StepShape result = shape;
  result.tokens = shape.tokens / from.per_device_train_batch_size * to.per_device_train_batch_size;
  result.source_tokens =
      shape.source_tokens / from.per_device_train_batch_size * to.per_device_train_batch_size;
  if (shape.labels > 0)
    result.labels =
        std::min(result.tokens, (shape.labels + from.per_device_train_batch_size - 1) /
                                    from.per_device_train_batch_size * to.per_device_train_batch_size);
  result.sequences = std::max<int64_t>(
      shape.sequences * to.per_device_train_batch_size / from.per_device_train_batch_size, 1);
  return result;
}

[[noreturn]] void refuse(const io::ModelFiles& files, const Recipe& recipe, const StepShape& shape,
                         const StepPlan& plan) {
  const int64_t program = plan.bytes("program");
  struct Fit {
    std::string text;
    double cost;
    int64_t total;
  };
  std::vector<Fit> fits;
  for (const Change& change : changes_of(recipe)) {
    const StepPlan other = plan_step(files, change.recipe, scaled(shape, recipe, change.recipe),
                                     checkpointing_named(change.recipe.gradient_checkpointing), program);
    if (other.total() <= recipe.memory_limit)
      fits.push_back({change.text, change.cost + other.cost.flops() / plan.cost.flops(), other.total()});
  }
  std::stable_sort(fits.begin(), fits.end(), [](const Fit& a, const Fit& b) { return a.cost < b.cost; });
  // Two changes of different kinds: the first key tells them apart.
  std::vector<std::string> advice, kinds;
  for (const Fit& fit : fits) {
    const std::string kind = fit.text.substr(0, fit.text.find('='));
    if (advice.size() == 2 || std::find(kinds.begin(), kinds.end(), kind) != kinds.end()) continue;
    kinds.push_back(kind);
    advice.push_back(fmt::format("{} ({})", fit.text, show_bytes(static_cast<double>(fit.total))));
  }
  fail("memory_limit", "this run plans {} with gradient_checkpointing {}, more than memory_limit {}; {}",
       show_bytes(static_cast<double>(plan.total())), checkpointing_name(plan.checkpointing),
       show_bytes(static_cast<double>(recipe.memory_limit)),
       advice.empty() ? "nothing short of a smaller model or a shorter max_seq_length would make it fit"
                      : fmt::format("it fits with {}", fmt::join(advice, ", or ")));
}

}  // namespace

StepPlan choose_plan(const io::ModelFiles& files, const Recipe& recipe, const StepShape& shape,
                     int64_t program) {
  StepPlan asked =
      plan_step(files, recipe, shape, checkpointing_named(recipe.gradient_checkpointing), program);
  if (recipe.memory_limit == 0 || asked.total() <= recipe.memory_limit) return asked;
  if (recipe.was_given("gradient_checkpointing")) refuse(files, recipe, shape, asked);
  std::optional<StepPlan> best;
  for (const Checkpointing policy : {Checkpointing::kSelective, Checkpointing::kBlock}) {
    StepPlan plan = plan_step(files, recipe, shape, policy, program);
    if (plan.total() <= recipe.memory_limit && (!best || plan.cost.flops() < best->cost.flops()))
      best = std::move(plan);
  }
  if (!best) refuse(files, recipe, shape, asked);
  return *best;
}

}  // namespace nibble::train
