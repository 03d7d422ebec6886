// nibble bench: where the time of a recipe's training step goes, beside what the machine can do.
#include <unistd.h>

#include <filesystem>

#include "backend/limits.h"
#include "base/json.h"
#include "base/process.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/recipe_options.h"
#include "cli/session.h"
#include "eval/speed.h"
#include "train/profile.h"

namespace nibble::cli {
namespace {

// The place of what a paged optimizer writes; gone with the command.
class Scratch {
 public:
  Scratch()
      : path_(
            (std::filesystem::temp_directory_path() / fmt::format("nibble-bench-{}", ::getpid())).string()) {
    std::filesystem::create_directories(path_);
  }
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Reading and writing with the weights as they are stored, unless the recipe says otherwise.
int bench_generation(const train::Recipe& recipe, int rounds, bool json) {
  constexpr int64_t kPrompt = 512, kWritten = 128, kBatch = 16;
  if (recipe.model.empty()) throw UsageError("bench", "--model is missing");
  ModelOptions options;
  options.model = recipe.model;
  options.tokenizer = recipe.tokenizer;
  options.adapter = recipe.adapter;
  options.dtype = recipe.dtype;
  options.threads = recipe.threads;
  if (recipe.was_given("quantize")) options.quantize = recipe.quantize;
  options.double_quant = recipe.was_given("double_quant") && recipe.double_quant;
  options.block_size = recipe.block_size;
  options.apply();
  Session session(options);
  eval::Generator generator(session.context(), session.model(), session.tokenizer());
  const eval::GenerationSpeed speed =
      eval::measure_generation(generator, session.model().config().vocab, kPrompt, kWritten, kBatch, rounds);
  const double bandwidth = backend::read_bandwidth(),
               bytes = static_cast<double>(session.model().weight_bytes());
  const double share = speed.single * bytes / bandwidth;
  if (json) {
    print_json({{"prefill_tokens", kPrompt},
                {"prefill_tokens_per_second", speed.prefill},
                {"tokens_per_second", speed.single},
                {"batch", kBatch},
                {"batch_tokens_per_second", speed.many},
                {"weight_bytes", bytes},
                {"read_bandwidth_bytes_per_second", bandwidth},
                {"bandwidth_share", share}});
    return 0;
  }
  print(
      fmt::format("reading     {:.0f} tokens/s, a prompt of {}\n"
                  "writing     {:.1f} tokens/s; {} of weights each, {:.0f} % of {:.1f} GB/s\n"
                  "writing {:<3} {:.1f} tokens/s together, {:.1f} times one\n",
                  speed.prefill, kPrompt, speed.single, show_bytes(bytes), share * 100, bandwidth / 1e9,
                  kBatch, speed.many, speed.many / speed.single));
  return 0;
}

}  // namespace

int run_bench(const Arguments& arguments) {
  if (printed_recipe_help(arguments)) return 0;
  RecipeOptions recipe_options;
  int64_t rounds = 3;
  bool json = false, generation = false;
  Options options("bench",
                  "Measures a recipe's training step: each operation's time, bytes and FLOPs beside the "
                  "machine's limits.",
                  "nibble bench --model model.gguf per_device_train_batch_size=4 max_seq_length=512");
  recipe_options.declare(options);
  options.add("--rounds N", rounds, "steps to time, each followed by a measurement of the limit");
  options.flag("--generation", generation, "measure reading and writing text instead of a training step");
  options.flag("--json", json, "one JSON document instead of the tables");
  options.footer(
      "Without --data the step has random tokens, every sequence full (512 tokens unless max_seq_length says "
      "otherwise).\n"
      "JSON: {\"limit_share\", \"tokens_per_second\", \"product_limit_flops\", \"operations\": [{\"name\", "
      "\"seconds\", \"flops\",\n"
      "\"bytes\", \"limit_seconds\"}], \"kernels\": […], …}");
  if (!options.parse(arguments)) return 0;
  if (rounds < 1 || rounds > 1000)
    throw UsageError("--rounds", fmt::format("should be 1 to 1000, got {}", rounds));
  catch_interrupts();
  const double started = now_seconds();

  train::Recipe recipe = recipe_options.recipe(std::nullopt);
  if (generation) return bench_generation(recipe, static_cast<int>(rounds), json);
  const Scratch scratch;
  recipe.out = scratch.path();
  const bool synthetic = recipe.data.empty();
  const train::Prepared prepared = synthetic ? train::prepare_synthetic(recipe) : train::prepare(recipe);
  train::Engine engine(prepared, train::choose_plan(prepared.files, prepared.recipe, prepared.shape()));
  const data::StepStream stream = prepared.steps();
  const train::StepProfile profile = train::profile_step(engine, stream.step(0), static_cast<int>(rounds));
  if (json) {
    Json document = train::profile_json(profile);
    document["gradient_checkpointing"] = train::checkpointing_name(engine.plan().checkpointing);
    document["synthetic"] = synthetic;
    document["seconds_to_first_step"] = profile.first_ended - started;
    print_json(document);
  } else {
    print(train::profile_table(profile));
    print(fmt::format("\nlaunch to the end of the first step: {}\n",
                      show_seconds(profile.first_ended - started)));
  }
  return 0;
}

}  // namespace nibble::cli
