// The studies under recipes/studies parse, and their measures take their options.
#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include <filesystem>

#include "base/error.h"
#include "study/measures.h"
#include "train/recipe.h"

namespace nibble::study {
namespace {

TEST(ShippedStudies, ParseAndNameKnownThings) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(NIBBLE_SOURCE_DIR "/recipes/studies")) {
    if (entry.path().extension() != ".yaml") continue;
    ++count;
    const std::string path = entry.path().string();
    Given given;
    for (const auto& item : YAML::LoadFile(path)["needs"]) given[item.first.as<std::string>()] = "x";
    const Spec spec = read_spec(path, given);
    EXPECT_EQ(spec.name, entry.path().stem().string());
    EXPECT_FALSE(spec.about.empty() || spec.scale.empty()) << path;
    for (size_t m = 0; m < spec.measures.size(); ++m)
      for (size_t d = 0; d < std::max<size_t>(spec.data.size(), 1); ++d)
        EXPECT_NO_THROW(measure_kind(spec.measures[m].kind).check(measure_options(spec, m, d), "measure"))
            << path;
    // Every published row is a row of the study, and says at which scale it was obtained.
    for (const auto& [variant, figure] : spec.published.rows) {
      bool known = false;
      for (const Named& v : spec.variants) known = known || v.name == variant;
      EXPECT_TRUE(known) << path << ": published row " << variant << " is no variant";
    }
    EXPECT_TRUE(spec.published.empty() || !spec.published.scale.empty()) << path;
    // Keys of all axes together make a recipe.
    for (const Named& model : spec.models)
      for (const Named& variant : spec.variants) {
        train::Recipe recipe;
        for (const auto* keys : {&spec.train, &model.keys, &variant.keys})
          for (const auto& [key, value] : *keys) train::set_field(recipe, key, value);
        EXPECT_NO_THROW(train::settle_base(recipe)) << path << " " << variant.name;
      }
    for (const Named& base : spec.prepare) {
      train::Recipe recipe;
      for (const auto& [key, value] : base.keys) train::set_field(recipe, key, value);
      EXPECT_NO_THROW(train::check_recipe(recipe)) << path << " " << base.name;
      EXPECT_TRUE(std::filesystem::exists(recipe.model + "/config.json")) << path << " " << base.name;
    }
  }
  EXPECT_GE(count, 9);
}

}  // namespace
}  // namespace nibble::study
