// nibble train: one recipe, one run.
#include <cmath>

#include "base/json.h"
#include "base/process.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/recipe_options.h"
#include "train/manifest.h"
#include "train/run.h"

namespace nibble::cli {
namespace {

// What a resumed run was started with, when no recipe is given: `--resume --out DIR` is enough.
std::optional<train::Recipe> earlier_recipe(const RecipeOptions& options, bool resume) {
  if (!resume || !options.out || !options.file().empty()) return std::nullopt;
  const Json manifest = train::read_manifest(*options.out);
  if (manifest.is_null()) return std::nullopt;
  return train::recipe_from_json(manifest["recipe"], *options.out + "/" + train::kManifestFile);
}

std::string summary(const train::RunResult& result) {
  std::string text;
  if (!result.steps.empty())
    text += fmt::format("trained {} steps: loss {:.4f} → {:.4f}", result.total_steps,
                        result.steps.front().loss, result.steps.back().loss);
  if (!result.evals.empty()) text += fmt::format(", held out {:.4f}", result.evals.back().loss);
  text += fmt::format("\n{} tok/s", show_count(std::llround(result.tokens_per_second)));
  if (result.limit_share > 0)
    text += fmt::format(", {:.0f}% of the matrix-product limit", result.limit_share * 100);
  text += fmt::format(", peak {} resident; first step after {}, {} in all\n",
                      show_bytes(static_cast<double>(result.peak_rss_bytes)),
                      show_seconds(result.seconds_to_first_step), show_seconds(result.seconds));
  return text + fmt::format("adapter: {}\n", result.out);
}

}  // namespace

int run_train(const Arguments& arguments) {
  const double started = now_seconds();
  if (printed_recipe_help(arguments)) return 0;
  RecipeOptions recipe_options;
  bool resume = false, overwrite = false, json = false, quiet = false;
  Options options(
      "train", "Fine-tunes a model: adapters over a frozen 4-bit base, or every weight.",
      "nibble train --model model.gguf --data requests.jsonl learning_rate=3e-4 num_train_epochs=2");
  recipe_options.declare(options);
  options.flag("--resume", resume, "go on from the last checkpoint in the run directory");
  options.flag("--overwrite", overwrite, "replace an earlier run in the run directory");
  options.flag("--quiet", quiet, "show nothing while training");
  options.flag("--json", json, "one JSON document at the end instead of the summary");
  options.footer(
      "`nibble train --help-recipe` lists every key with its default (docs/recipes.md).\n"
      "JSON: {\"steps\", \"losses\": […], \"eval\": [{\"step\", \"loss\"}], \"tokens_per_second\", "
      "\"limit_share\",\n"
      "\"peak_rss_bytes\", \"seconds_to_first_step\", \"plan\", \"out\", \"adapter\", \"metrics\", …}");
  if (!options.parse(arguments)) return 0;
  if (resume && overwrite)
    throw UsageError("train", "--resume goes on from a run, --overwrite replaces it: give one of them");
  catch_interrupts();
  const train::Prepared prepared =
      train::prepare(recipe_options.recipe(earlier_recipe(recipe_options, resume)));
  const train::RunResult result = train::run_training(
      prepared, {.resume = resume, .overwrite = overwrite, .quiet = quiet, .started = started});
  if (json)
    print_json(result.to_json());
  else
    print(summary(result));
  return 0;
}

}  // namespace nibble::cli
