#include "train/recipe.h"

#include <gmock/gmock.h>

#include "base/file.h"
#include "base/json.h"
#include "tests/train/tiny.h"

namespace nibble::train {
namespace {

using testing::HasSubstr;

Recipe parsed(const std::string& yaml) {
  Recipe recipe;
  read_recipe_text(recipe, yaml, "r.yaml");
  return recipe;
}
std::string error_of(const std::string& yaml) {
  return message_of([&] { parsed(yaml); });
}
std::string assignment_error(const std::string& assignment) {
  return message_of([&] {
    Recipe recipe;
    set_field(recipe, assignment);
  });
}

TEST(Recipe, ReadsEveryType) {
  const Recipe r = parsed(
      "model: m.gguf\ndata: [a.jsonl, {path: b.csv, format: alpaca, weight: 0.5}]\nlearning_rate: "
      "3e-4\nmax_steps: 12\n"
      "packing: no\ntarget_modules: [q_proj, v_proj]\npaged_memory: 4 MiB\noptim: adamw_8bit\n");
  EXPECT_EQ(r.model, "m.gguf");
  ASSERT_EQ(r.data.size(), 2u);
  EXPECT_EQ(r.data[0].path, "a.jsonl");
  EXPECT_EQ(r.data[1].format, "alpaca");
  EXPECT_EQ(r.data[1].weight, 0.5);
  EXPECT_EQ(r.learning_rate, 3e-4);
  EXPECT_EQ(r.max_steps, 12);
  EXPECT_FALSE(r.packing);
  EXPECT_EQ(r.target_modules, (std::vector<std::string>{"q_proj", "v_proj"}));
  EXPECT_EQ(r.paged_memory, 4 << 20);
  EXPECT_TRUE(r.was_given("optim"));
  EXPECT_FALSE(r.was_given("seed"));
}

TEST(Recipe, OneDataSetMayBeAMapOrAPath) {
  EXPECT_EQ(parsed("data: {path: a.jsonl, format: text}").data[0].format, "text");
  EXPECT_EQ(parsed("data: a.jsonl").data[0].path, "a.jsonl");
}

TEST(Recipe, UnknownKeyNamesTheLineAndTheNearestKey) {
  EXPECT_THAT(error_of("model: m\nlearning_rat: 1e-4\n"),
              HasSubstr("[r.yaml:2] unknown key \"learning_rat\"; did you mean learning_rate?"));
  EXPECT_THAT(error_of("zzzzzzzzzz: 1"),
              HasSubstr("unknown key \"zzzzzzzzzz\"; `nibble train --help-recipe` lists every key"));
  EXPECT_THAT(assignment_error("lora_rank=8"), HasSubstr("did you mean lora_r"));
  EXPECT_THROW(parsed("learning_rat: 1"), UsageError);
}

TEST(Recipe, WrongValuesSayWhatWasExpected) {
  EXPECT_THAT(error_of("a: 1\nmax_steps: ten"), HasSubstr("unknown key"));
  EXPECT_THAT(error_of("seed: 1\nmax_steps: ten"),
              HasSubstr("[r.yaml:2] max_steps takes a whole number, not \"ten\""));
  EXPECT_THAT(error_of("max_steps: 1.5"), HasSubstr("max_steps takes a whole number, not \"1.5\""));
  EXPECT_THAT(error_of("learning_rate: fast"), HasSubstr("learning_rate takes a number, not \"fast\""));
  EXPECT_THAT(error_of("learning_rate: nan"), HasSubstr("takes a number"));
  EXPECT_THAT(error_of("packing: maybe"), HasSubstr("packing takes true or false, not \"maybe\""));
  EXPECT_THAT(error_of("optim: adamw8bit"), HasSubstr("did you mean adamw_8bit?"));
  EXPECT_THAT(error_of("lora_dropout: 1.5"), HasSubstr("lora_dropout must lie between 0 and 0.99, not 1.5"));
  EXPECT_THAT(error_of("lora_r: 0"), HasSubstr("lora_r must lie between 1"));
  EXPECT_THAT(error_of("memory_limit: 2 apples"), HasSubstr("expected a size such as 2GB"));
  EXPECT_THAT(error_of("model: [a, b]"), HasSubstr("model takes one value, not a list"));
  EXPECT_THAT(error_of("seed:\n"), HasSubstr("seed has no value"));
  EXPECT_THAT(error_of("data: [{pth: a}]"), HasSubstr("did you mean path?"));
  EXPECT_THAT(error_of("data: [{format: text}]"), HasSubstr("data has an entry without a path"));
  EXPECT_THAT(error_of("seed: 1\nseed: 2"), HasSubstr("[r.yaml:2] seed is given twice"));
}

TEST(Recipe, TextThatIsNoRecipe) {
  EXPECT_THAT(error_of("model: [a"), HasSubstr("is not YAML"));
  EXPECT_THAT(error_of("just words"), HasSubstr("a recipe is a list of `key: value` lines"));
  EXPECT_THAT(error_of("model: \xff"), HasSubstr("is not valid UTF-8 (byte 7)"));
  EXPECT_THAT(error_of(std::string(2 << 20, ' ')), HasSubstr("larger than 1 MiB"));
  EXPECT_NE(error_of(std::string(200000, '[')), "");
  EXPECT_EQ(error_of(""), "");
  EXPECT_THAT(message_of([] {
                Recipe r;
                read_recipe(r, "/nonexistent.yaml");
              }),
              HasSubstr("no such recipe"));
}

TEST(Recipe, AssignmentsGoBeforeTheFile) {
  Recipe r = parsed("learning_rate: 1e-4\ntarget_modules: all-linear\n");
  set_field(r, "learning_rate=2e-3");
  set_field(r, "target_modules=q_proj,k_proj");
  set_field(r, "data=[a.jsonl, b.jsonl]");
  EXPECT_EQ(r.learning_rate, 2e-3);
  EXPECT_EQ(r.target_modules.size(), 2u);
  EXPECT_EQ(r.data.size(), 2u);
  set_field(r, "out=a=b");
  EXPECT_EQ(r.out, "a=b");
  EXPECT_THAT(assignment_error("nonsense"), HasSubstr("expected key=value, not \"nonsense\""));
}

TEST(Recipe, WhatIsPrintedReadsBackTheSame) {
  Recipe r = parsed(
      "model: \"a: b # c\"\ndata: [\"x y.jsonl\", {path: b, weight: 2}]\nlearning_rate: "
      "1.0000000001e-5\nmemory_limit: 2GB\n");
  set_field(r, "target_modules=[\"a,b\", '.*q_proj']");
  Recipe again;
  read_recipe_text(again, recipe_yaml(r), "printed");
  EXPECT_EQ(recipe_json(again).dump(), recipe_json(r).dump());
  EXPECT_EQ(recipe_json(recipe_from_json(recipe_json(r), "json")).dump(), recipe_json(r).dump());
  EXPECT_EQ(again.model, "a: b # c");
}

TEST(Recipe, ChecksWhatFieldsAloneCannotSay) {
  const auto check = [](const std::string& yaml) {
    return message_of([&] {
      Recipe r = parsed(yaml);
      check_recipe(r);
    });
  };
  EXPECT_THAT(check("data: d"), HasSubstr("[model] is missing"));
  EXPECT_THAT(check("model: m"), HasSubstr("[data] is missing"));
  EXPECT_THAT(check("model: m\ndata: d\nmethod: full\nquantize: nf4"), HasSubstr("quantize must be none"));
  EXPECT_THAT(check("model: m\ndata: d\nquantize: nf5"), HasSubstr("nf4"));
  EXPECT_THAT(check("model: m\ndata: d\nblock_size: 65"), HasSubstr("block"));
  EXPECT_THAT(check("model: m\ndata: d\nnum_train_epochs: 0"), HasSubstr("at least a part of an epoch"));
  const std::string loftq = "model: m\ndata: d\ninit_lora_weights: loftq\n";
  EXPECT_THAT(check(loftq + "method: full"), HasSubstr("set method to lora"));
  EXPECT_THAT(check(loftq + "adapter: a"), HasSubstr("values of its own"));
  EXPECT_THAT(check(loftq + "quantize: none"), HasSubstr("nothing is quantized here"));
  EXPECT_EQ(check(loftq), "");
  EXPECT_EQ(check("model: m\ndata: d\nmethod: full"), "");
  EXPECT_EQ(check("model: m\ndata: d\nquantize: int8"), "");
  Recipe r = parsed("model: /x/SmolLM2.gguf\ndata: /y/requests.jsonl");
  check_recipe(r);
  EXPECT_EQ(r.out, "runs/SmolLM2-requests");
}

TEST(Recipe, SizesAreRead) {
  EXPECT_EQ(parse_bytes("2GB", "x"), 2000000000);
  EXPECT_EQ(parse_bytes("1.5 GiB", "x"), 1610612736);
  EXPECT_EQ(parse_bytes("123", "x"), 123);
  EXPECT_THROW(parse_bytes("-1GB", "x"), UsageError);
  EXPECT_THROW(parse_bytes("99999999TB", "x"), UsageError);
}

TEST(Recipe, DocumentationIsWhatTheFieldListSays) {
  EXPECT_EQ(read_file(NIBBLE_SOURCE_DIR "/docs/recipes.md"), recipe_markdown())
      << "docs/recipes.md is out of date: nibble train --help-recipe=markdown > docs/recipes.md";
}

TEST(Recipe, EveryFieldIsExplainedAndItsDefaultIsValid) {
  const Recipe defaults;
  std::set<std::string> names;
  for (const Field& field : recipe_fields()) {
    EXPECT_TRUE(names.insert(field.name).second) << field.name;
    EXPECT_GT(std::string_view(field.help).size(), 10u) << field.name;
    Recipe again;
    std::string shown = show_field(defaults, field);
    if (shown == "\"\"" || shown == "[]") continue;
    read_recipe_text(again, fmt::format("{}: {}", field.name, shown), field.name);
    EXPECT_EQ(show_field(again, field), shown);
    EXPECT_THAT(recipe_help(), HasSubstr(field.name));
  }
}

}  // namespace
}  // namespace nibble::train
