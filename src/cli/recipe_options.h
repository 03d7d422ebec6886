// How a recipe comes together for `nibble train` and `nibble plan`: a YAML file, key=value words and options,
// the later before the earlier.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "cli/command.h"
#include "train/recipe.h"

namespace nibble::cli {

struct RecipeOptions {
  std::vector<std::string> words;  // RECIPE.yaml and key=value
  std::vector<std::string> data;
  std::optional<std::string> model, tokenizer, adapter, quantize, dtype, device, out;
  std::optional<bool> double_quant;
  std::optional<int64_t> block_size, threads, seed;

  void declare(Options& options);
  // `earlier`: the recipe a resumed run was started with, used where no file is given. Errors: UsageError.
  train::Recipe recipe(const std::optional<train::Recipe>& earlier) const;
  // The path among the words, or "".
  std::string file() const;
};

// --help-recipe or --help-recipe=markdown among the words prints the keys and is true.
bool printed_recipe_help(const std::vector<std::string>& arguments);

}  // namespace nibble::cli
