#include "cli/recipe_options.h"

#include <filesystem>

#include "base/error.h"
#include "base/json.h"

namespace nibble::cli {
namespace {

// A word with "=" is an assignment unless a file has that name.
bool is_assignment(const std::string& word) {
  std::error_code none;
  return word.find('=') != std::string::npos && !std::filesystem::exists(word, none);
}

}  // namespace

void RecipeOptions::declare(Options& options) {
  options.add("recipe RECIPE.yaml|key=value", words, "a recipe, and keys that go before it");
  options.add("--model PATH", model, "model: a directory, .gguf, .safetensors or llama2.c .bin");
  options.add("--data FILE", data, "what to train on; may be given several times");
  options.add("--out DIR", out, "the run directory");
  options.add("--tokenizer PATH", tokenizer, "tokenizer, when it is not beside the weights");
  options.add("--adapter DIR", adapter, "go on from this PEFT adapter");
  options.add("--quantize FORMAT", quantize, "format of the frozen base (default: nf4)");
  options.flag("--double-quant,!--no-double-quant", double_quant,
               "quantize the block scales as well (default: on)");
  options.add("--block-size N", block_size, "values that share a scale (default: 64)");
  options.add("--dtype bf16|f32", dtype, "type of the computation (default: bf16)");
  options.add("--device cpu|auto", device, "where to compute");
  options.add("--threads N", threads, "threads; 0 is one per processor");
  options.add("--seed N", seed, "seed of everything random (default: 42)");
}

std::string RecipeOptions::file() const {
  std::string path;
  for (const std::string& word : words) {
    if (is_assignment(word)) continue;
    if (!path.empty())
      throw UsageError("train", fmt::format("two recipes, {} and {}; there is one at a time", path, word));
    path = word;
  }
  return path;
}

train::Recipe RecipeOptions::recipe(const std::optional<train::Recipe>& earlier) const {
  train::Recipe recipe;
  const std::string path = file();
  if (!path.empty())
    train::read_recipe(recipe, path);
  else if (earlier)
    recipe = *earlier;
  for (const std::string& word : words)
    if (is_assignment(word)) train::set_field(recipe, word);
  const std::pair<const char*, const std::optional<std::string>&> texts[] = {
      {"model", model}, {"tokenizer", tokenizer}, {"adapter", adapter}, {"quantize", quantize},
      {"dtype", dtype}, {"device", device},       {"out", out}};
  for (const auto& [key, value] : texts)
    if (value) train::set_field(recipe, key, *value);
  const std::pair<const char*, const std::optional<int64_t>&> numbers[] = {
      {"block_size", block_size}, {"threads", threads}, {"seed", seed}};
  for (const auto& [key, value] : numbers)
    if (value) train::set_field(recipe, key, std::to_string(*value));
  if (double_quant) train::set_field(recipe, "double_quant", *double_quant ? "true" : "false");
  if (!data.empty()) {
    recipe.data.clear();
    for (const std::string& one : data) recipe.data.push_back({.path = one});
    recipe.given.insert("data");
  }
  return recipe;
}

bool printed_recipe_help(const std::vector<std::string>& arguments) {
  for (const std::string& word : arguments) {
    if (word == "--help-recipe") return print(train::recipe_help()), true;
    if (word == "--help-recipe=markdown") return print(train::recipe_markdown()), true;
  }
  return false;
}

}  // namespace nibble::cli
