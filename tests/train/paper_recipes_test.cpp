// The recipes under recipes/paper: each parses, and says what the paper's table 9 says.
#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "base/error.h"
#include "train/recipe.h"

namespace nibble::train {
namespace {

const std::string kFolder = NIBBLE_SOURCE_DIR "/recipes/paper/";

Recipe read(const std::string& name) {
  Recipe recipe;
  read_recipe(recipe, kFolder + name + ".yaml");
  set_field(recipe, "model", "m");
  set_field(recipe, "data", "d.jsonl");
  check_recipe(recipe);
  return recipe;
}

struct PaperRow {
  const char* name;
  int64_t batch;
  double rate;
  int64_t steps, source, target;
};
// Batch, learning rate, steps, source and target length (Dettmers et al. 2023, table 9).
constexpr PaperRow kTable[] = {
    {"7b-instructions", 16, 2e-4, 10000, 384, 128}, {"7b-oasst1", 16, 2e-4, 1875, 0, 512},
    {"7b-hh-rlhf", 16, 2e-4, 10000, 0, 768},        {"7b-longform", 16, 2e-4, 4000, 512, 1024},
    {"33b-instructions", 32, 1e-4, 5000, 384, 128}, {"33b-oasst1", 16, 1e-4, 1875, 0, 512},
    {"33b-hh-rlhf", 32, 1e-4, 5000, 0, 768},        {"33b-longform", 32, 1e-4, 2343, 512, 1024},
    {"65b-instructions", 64, 1e-4, 2500, 384, 128}, {"65b-oasst1", 16, 1e-4, 1875, 0, 512},
    {"65b-hh-rlhf", 64, 1e-4, 2500, 0, 768},        {"65b-longform", 32, 1e-4, 2343, 512, 1024},
};

TEST(PaperRecipes, SayWhatTheTableSays) {
  std::set<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(kFolder))
    if (entry.is_regular_file()) files.insert(entry.path().stem().string());
  for (const PaperRow& row : kTable) {
    const Recipe r = read(row.name);
    EXPECT_EQ(files.erase(row.name), 1u) << row.name;
    EXPECT_EQ(r.per_device_train_batch_size * r.gradient_accumulation_steps, row.batch) << row.name;
    EXPECT_DOUBLE_EQ(r.learning_rate, row.rate) << row.name;
    EXPECT_EQ(r.max_steps, row.steps) << row.name;
    EXPECT_EQ(r.source_max_length, row.source) << row.name;
    EXPECT_EQ(r.target_max_length, row.target) << row.name;
    // What all of them share.
    EXPECT_EQ(r.quantize, "nf4") << row.name;
    EXPECT_TRUE(r.double_quant) << row.name;
    EXPECT_EQ(r.block_size, 64) << row.name;
    EXPECT_EQ(r.lora_r, 64) << row.name;
    EXPECT_EQ(r.lora_alpha, 16) << row.name;
    EXPECT_EQ(r.lora_dropout, row.name[0] == '7' ? 0.1 : 0.05) << row.name;
    EXPECT_EQ(r.target_modules, std::vector<std::string>{"all-linear"}) << row.name;
    EXPECT_EQ(r.lr_scheduler_type, "constant") << row.name;
    EXPECT_EQ(r.warmup_ratio, 0) << row.name;
    EXPECT_EQ(r.weight_decay, 0) << row.name;
    EXPECT_EQ(r.max_grad_norm, 0.3) << row.name;
    EXPECT_EQ(r.optim, "paged_adamw") << row.name;
    EXPECT_EQ(r.adam_beta2, 0.999) << row.name;
    EXPECT_EQ(r.gradient_checkpointing, "block") << row.name;
    EXPECT_TRUE(r.group_by_length && !r.packing) << row.name;
    EXPECT_EQ(r.dtype, "bf16") << row.name;
  }
  EXPECT_TRUE(files.empty()) << *files.begin() << " is in no row of the table";
}

// Each ablation is 7b-instructions but for what its name says.
TEST(PaperRecipes, AblationsDifferInOneThing) {
  const std::map<std::string, std::set<std::string>> expected = {
      {"train-on-source", {"train_on_source"}},
      {"rank-8", {"lora_r"}},
      {"rank-16", {"lora_r"}},
      {"rank-32", {"lora_r"}},
      {"rank-128", {"lora_r"}},
      {"rank-256", {"lora_r"}},
      {"targets-key-query", {"target_modules"}},
      {"targets-attention", {"target_modules"}},
      {"targets-ffn", {"target_modules"}},
      {"targets-outputs", {"target_modules"}},
      {"dropout-0", {"lora_dropout"}},
      {"dropout-0.05", {"lora_dropout"}},
      {"no-grouping", {"group_by_length"}},
      {"data-50k", {"max_steps", "num_train_epochs"}},
      {"lora-16bit", {"quantize", "double_quant"}},
      {"full-16bit",
       {"quantize", "double_quant", "method", "lora_r", "lora_alpha", "lora_dropout", "learning_rate"}},
  };
  const Recipe base = read("7b-instructions");
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kFolder + "ablations")) {
    const std::string name = entry.path().stem().string();
    ASSERT_TRUE(expected.count(name)) << name;
    ++count;
    const Recipe r = read("ablations/" + name);
    std::set<std::string> differing;
    for (const Field& field : recipe_fields())
      if (show_field(r, field) != show_field(base, field)) differing.insert(field.name);
    EXPECT_EQ(differing, expected.at(name)) << name;
  }
  EXPECT_EQ(count, expected.size());
}

TEST(PaperRecipes, GroupingByLengthNeedsExamplesOfTheirOwn) {
  Recipe r = read("7b-instructions");
  r.packing = true;
  try {
    check_recipe(r);
    FAIL() << "no error";
  } catch (const UsageError& e) {
    EXPECT_NE(std::string(e.what()).find("set packing to false"), std::string::npos) << e.what();
  }
}

TEST(Recipe, APartOfADataSet) {
  Recipe r;
  set_field(r, "data", "[{path: a.jsonl, skip: 10, take: 5}, b.jsonl]");
  EXPECT_EQ(r.data.at(0).skip, 10);
  EXPECT_EQ(r.data.at(0).take, 5);
  Recipe again;
  read_recipe_text(again, recipe_yaml(r), "again");
  EXPECT_EQ(again.data.at(0).skip, 10);
  EXPECT_EQ(again.data.at(0).take, 5);
  EXPECT_EQ(again.data.at(1).take, 0);
  try {
    set_field(r, "data", "[{path: a.jsonl, take: 1.5}]");
    FAIL() << "no error";
  } catch (const UsageError& e) {
    EXPECT_NE(std::string(e.what()).find("take of a.jsonl should be a number of examples"), std::string::npos)
        << e.what();
  }
}

}  // namespace
}  // namespace nibble::train
