// A recipe: YAML, and each of its lines as key=value. What was read is printed and reads back to the same
// values.
#include "train/recipe.h"

#include <cstdlib>

#include "base/json.h"
#include "base/text.h"
#include "tests/fuzz/fuzz.h"

using nibble::train::Recipe;

FUZZ_TARGET(recipe) {
  nibble::fuzz::attempt([&] {
    Recipe recipe;
    nibble::train::read_recipe_text(recipe, bytes, "fuzz.yaml");
    const std::string printed = nibble::train::recipe_yaml(recipe);
    Recipe again;
    nibble::train::read_recipe_text(again, printed, "printed.yaml");
    if (nibble::train::recipe_yaml(again) != printed) std::abort();
    const nibble::Json json = nibble::train::recipe_json(recipe);
    if (nibble::train::recipe_json(nibble::train::recipe_from_json(json, "fuzz.json")) != json) std::abort();
    nibble::train::check_recipe(recipe);
  });
  Recipe recipe;
  for (const std::string& line : nibble::split(bytes, '\n'))
    nibble::fuzz::attempt([&] { nibble::train::set_field(recipe, line); });
}
