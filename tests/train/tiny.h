// A run small enough for tests: the tiny random LLaMA of tests/goldens and encoded examples made by rule.
#pragma once
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "backend/kernel_slot.h"
#include "base/file.h"
#include "base/json.h"
#include "base/rng.h"
#include "train/loading.h"
#include "train/prepare.h"
#include "train/run.h"

namespace nibble::train {

inline const std::string kTiny = NIBBLE_SOURCE_DIR "/tests/goldens/tiny_llama";

// A directory of this test alone, removed at its end.
class TempDir {
 public:
  TempDir() {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    path = (std::filesystem::temp_directory_path() /
            fmt::format("nibble-{}-{}-{}", info->test_suite_name(), info->name(), ::getpid()))
               .string();
    std::filesystem::remove_all(path);
    std::filesystem::create_directories(path);
  }
  ~TempDir() {
    std::error_code none;
    std::filesystem::remove_all(path, none);
  }
  std::string path;
};

// Sequences that a model can learn: each token is the one before plus a step of the sequence's own.
inline std::vector<data::EncodedExample> counting_examples(int64_t n, int64_t first_length, uint64_t seed) {
  std::vector<data::EncodedExample> examples;
  const Rng rng(seed, 7);
  for (int64_t i = 0; i < n; ++i) {
    data::EncodedExample example;
    const auto at = static_cast<uint64_t>(i) * 3;
    const int64_t length = first_length + static_cast<int64_t>(rng.below(at, 8));
    auto token = static_cast<int64_t>(rng.below(at + 1, 90));
    const auto stride = static_cast<int64_t>(1 + rng.below(at + 2, 3));
    for (int64_t t = 0; t < length; ++t) {
      example.ids.push_back(static_cast<int32_t>(3 + token % 90));
      example.train.push_back(t >= 3 ? 1 : 0);
      token += stride;
    }
    example.source = fmt::format("rule:{}", i + 1);
    examples.push_back(std::move(example));
  }
  return examples;
}

inline Prepared tiny_run(const std::string& out, const std::vector<std::string>& assignments) {
  backend::register_cpu_kernels();
  Prepared prepared;
  Recipe& recipe = prepared.recipe;
  set_field(recipe, "model", kTiny);
  set_field(recipe, "data", "rule");
  set_field(recipe, "out", out);
  for (const char* assignment :
       {"lora_r=4", "lora_alpha=8", "per_device_train_batch_size=2", "max_steps=6", "learning_rate=0.003"})
    set_field(recipe, assignment);
  for (const std::string& assignment : assignments) set_field(recipe, assignment);
  check_recipe(recipe);
  prepared.files = io::open_model(kTiny);
  const auto allocator = make_meta_allocator();
  backend::Stream stream(*allocator);
  prepared.config = load_base(prepared.files, recipe, stream)->config();
  prepared.dataset.train = counting_examples(24, 6, 1);
  prepared.dataset.train_weights.assign(prepared.dataset.train.size(), 1.0);
  prepared.dataset.eval = counting_examples(6, 6, 2);
  prepared.dataset.report.max_seq_length = recipe.max_seq_length > 0 ? recipe.max_seq_length : 32;
  return prepared;
}

// A recipe of the keys that every run has and of `keys`.
inline Recipe recipe_with(const std::string& model, const std::string& data, const std::string& out,
                          const std::vector<std::string>& keys) {
  Recipe recipe;
  set_field(recipe, "model", model);
  set_field(recipe, "data", data);
  set_field(recipe, "out", out);
  for (const std::string& key : keys) set_field(recipe, key);
  return recipe;
}

inline RunResult run_quietly(const Recipe& recipe, bool resume = false) {
  const Prepared prepared = prepare(recipe);
  return run_training(prepared, {.resume = resume, .quiet = true, .started = now_seconds()});
}

inline std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const std::exception& e) {
    return e.what();
  }
  return "";
}

}  // namespace nibble::train
