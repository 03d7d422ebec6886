// A training run as its author writes it: one list of fields (recipe_fields.cpp) drives the YAML parser,
// key=value overrides, printing, --help, JSON and docs/recipes.md.
//
// Keys carry the words users know from PEFT and Transformers. Errors: UsageError{file:line} for an unknown
// key (the nearest known one is suggested), a key given twice, a value of another type or out of range.
#pragma once
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/json_fwd.h"
#include "data/dataset.h"

namespace nibble::train {

struct Recipe {
  // what
  std::string model;
  std::string tokenizer;
  std::vector<data::DataSource> data;
  std::string adapter;
  std::string out;
  // base
  std::string quantize = "nf4";
  bool double_quant = true;
  int64_t block_size = 64;
  // method
  std::string task = "auto";
  std::string init = "weights";
  std::string method = "lora";
  int64_t lora_r = 16;
  double lora_alpha = 32;
  double lora_dropout = 0;
  bool use_rslora = false;
  std::string init_lora_weights = "kaiming";
  std::vector<std::string> target_modules = {"all-linear"};
  // optimizer
  double learning_rate = 2e-4;
  std::string lr_scheduler_type = "constant";
  double warmup_ratio = 0.03;
  int64_t warmup_steps = 0;
  double weight_decay = 0;
  double max_grad_norm = 0.3;
  std::string optim = "paged_adamw";
  double adam_beta1 = 0.9;
  double adam_beta2 = 0.999;
  double adam_epsilon = 1e-8;
  double sgd_momentum = 0.9;
  int64_t paged_memory = 16 << 20;
  // batch and length
  int64_t per_device_train_batch_size = 8;
  int64_t gradient_accumulation_steps = 1;
  int64_t max_steps = 0;
  double num_train_epochs = 1;
  int64_t max_seq_length = 0;
  int64_t source_max_length = 0, target_max_length = 0;
  bool packing = true;
  bool group_by_length = false;
  std::string overlong = "error";
  bool train_on_source = false;
  bool split_special_tokens = true;
  // memory
  std::string gradient_checkpointing = "none";
  int64_t memory_limit = 0;
  // evaluation and saving
  std::vector<data::DataSource> eval_data;
  double eval_fraction = 0.05;
  int64_t eval_steps = 0;
  int64_t save_steps = 0;
  int64_t save_total_limit = 3;
  int64_t logging_steps = 1;
  std::string on_nonfinite = "stop";
  // machine
  int64_t seed = 42;
  std::string dtype = "bf16";
  std::string device = "auto";
  int64_t threads = 0;

  std::set<std::string> given;  // keys that somebody wrote, in a file or on the command line

  bool lora() const { return method == "lora"; }
  // Is a label of each whole text learned? Settled by prepare().
  bool classifies() const { return task == "classification" || task == "regression"; }
  bool was_given(std::string_view key) const { return given.count(std::string(key)) > 0; }
};

enum class FieldType : uint8_t { kText, kChoice, kInteger, kNumber, kSwitch, kBytes, kList, kData };

// May a resumed run have another value than the run it goes on from? kByContent: a path may change, what it
// leads to not (the manifest's hashes decide).
enum class OnResume : uint8_t { kMustMatch, kMayChange, kByContent };

struct Field {
  using Member = std::variant<std::string Recipe::*, int64_t Recipe::*, double Recipe::*, bool Recipe::*,
                              std::vector<std::string> Recipe::*, std::vector<data::DataSource> Recipe::*>;
  const char* name;
  const char* section;
  FieldType type;
  Member member;
  OnResume on_resume;
  const char* help;
  double low = 0, high = 0;  // numbers: inclusive range when low < high
  const char* choices = "";  // kChoice: "a|b|c"
};

// In the order in which they are documented and printed.
std::span<const Field> recipe_fields();

// Reads the file into `recipe`, over the values it has. Relative paths stay as they are written (relative to
// where the program runs).
void read_recipe(Recipe& recipe, const std::string& path);
void read_recipe_text(Recipe& recipe, std::string_view yaml, const std::string& where);
// "key=value", as on the command line. Lists may be written a,b or [a, b].
void set_field(Recipe& recipe, std::string_view assignment);
void set_field(Recipe& recipe, std::string_view key, std::string_view value);

// What fields alone cannot say: keys that must be there, combinations that exclude each other, known formats.
// Fills in `out` (runs/<model>-<data>) where it is empty. Errors: UsageError.
void check_recipe(Recipe& recipe);
// The part of it that is about the base alone: method, init and format against each other; defaults that
// follow.
void settle_base(Recipe& recipe);

// The value of one field as YAML writes it, and the whole recipe as a file that reads back to the same
// values.
std::string show_field(const Recipe& recipe, const Field& field);
std::string recipe_yaml(const Recipe& recipe);
Json recipe_json(const Recipe& recipe);
// From recipe_json(). Errors as read_recipe.
Recipe recipe_from_json(const Json& json, const std::string& where);

// The keys as --help-recipe prints them, and docs/recipes.md.
std::string recipe_help();
std::string recipe_markdown();

// "2 GB", "1.5GiB", "800MB", "123456" → bytes. Errors: UsageError{where}.
int64_t parse_bytes(std::string_view text, std::string_view where);

}  // namespace nibble::train
