// nibble plan: the dry run of a recipe's step under each checkpointing policy, before anything is allocated.
#include "train/plan.h"
#include "base/json.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/recipe_options.h"
#include "train/device_table.h"
#include "train/loading.h"
#include "train/prepare.h"

namespace nibble::cli {

int run_plan(const Arguments& arguments) {
  if (printed_recipe_help(arguments)) return 0;
  RecipeOptions recipe_options;
  bool json = false, paper = false;
  Options options(
      "plan", "Shows what a recipe's step needs under each checkpointing policy, without loading the model.",
      "nibble plan recipe.yaml memory_limit=2GB");
  recipe_options.declare(options);
  options.flag("--json", json, "one JSON document instead of the tables");
  options.flag("--paper", paper,
               "instead of a recipe: what LLaMA 7B to 65B need, by method, and which devices they fit");
  options.footer(
      "JSON: {\"plans\": [{\"checkpointing\", \"groups\": {…}, \"total_bytes\", \"seconds_per_step\", …}], "
      "\"chosen\": POLICY}");
  if (!options.parse(arguments)) return 0;
  if (paper) {
    const std::vector<train::DeviceRow> rows = train::paper_plans();
    if (json)
      print_json(train::device_json(rows));
    else
      print(train::device_table(rows));
    return 0;
  }

  const train::Prepared prepared = train::prepare(recipe_options.recipe(std::nullopt));
  const train::StepShape shape = prepared.shape();
  const train::MachineSpeed speed = train::measured_speed(train::compute_dtype(prepared.recipe));
  Json document = {{"plans", Json::array()}};
  std::string text;
  for (const train::Checkpointing policy :
       {train::Checkpointing::kNone, train::Checkpointing::kSelective, train::Checkpointing::kBlock}) {
    const train::StepPlan plan =
        train::plan_step(prepared.files, prepared.recipe, shape, policy, prepared.program_bytes);
    document["plans"].push_back(train::plan_json(plan));
    document["plans"].back()["seconds_per_step"] = plan.cost.seconds(speed);
    text += fmt::format("gradient_checkpointing: {}\n{}{}\n", train::checkpointing_name(policy),
                        train::memory_table(plan),
                        train::time_line(plan, prepared.recipe.gradient_accumulation_steps, speed));
  }
  const train::StepPlan chosen =
      train::choose_plan(prepared.files, prepared.recipe, shape, prepared.program_bytes);
  document["chosen"] = train::checkpointing_name(chosen.checkpointing);
  text += fmt::format("this recipe takes gradient_checkpointing {}: {}\n",
                      train::checkpointing_name(chosen.checkpointing),
                      show_bytes(static_cast<double>(chosen.total())));
  if (json)
    print_json(document);
  else
    print(text);
  return 0;
}

}  // namespace nibble::cli
