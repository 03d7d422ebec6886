#include "io/bnb_checkpoint.h"

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "base/file.h"
#include "io/safetensors.h"
#include "tests/io/support.h"

namespace nibble::io {
namespace {

namespace fs = std::filesystem;

bool linear(const std::string& name) { return name.ends_with("_proj.weight"); }

// The tiny checkpoint in `format`, dense ones as f32.
std::vector<CheckpointItem> tiny_items(const std::string& format, bool double_quant, int64_t block = 64) {
  const auto source = open_model(golden("tiny_llama")).weights;
  std::vector<CheckpointItem> items;
  for (const WeightInfo& info : source->list()) {
    CheckpointItem item{info.name, info.shape, nullptr, kF32, block, false, {}};
    if (linear(info.name)) {
      item.format = &quant::find_format(format);
      item.double_quant = double_quant;
      item.make = [source, item] {
        return quant::encode(*item.format, values_of(source->read(item.name)), item.shape, item.block,
                             item.double_quant);
      };
    } else {
      item.make = [source, item] {
        return quant::dense_weight(f32_tensor(item.shape, values_of(source->read(item.name))));
      };
    }
    items.push_back(item);
  }
  return items;
}

Json tiny_config() { return open_model(golden("tiny_llama")).config; }

struct Kind {
  const char* format;
  bool double_quant;
  int64_t block;
  int64_t shard;
};
class BnbCheckpoint : public ::testing::TestWithParam<Kind> {};

TEST_P(BnbCheckpoint, IsReadBackAsItWasMade) {
  const Kind k = GetParam();
  TempDir dir;
  const auto items = tiny_items(k.format, k.double_quant, k.block);
  int64_t last = 0, total = 0;
  const auto report = write_bnb_checkpoint(
      dir / "out", items, tiny_config(), {.files = {{"tokenizer.json", "{}"}}, .sources = {}},
      [&](int64_t done, int64_t all) {
        EXPECT_GT(done, last);
        last = done;
        total = all;
      },
      k.shard);
  EXPECT_EQ(last, total);
  EXPECT_EQ(report.bytes, total);
  EXPECT_EQ(report.tensors, 21);
  EXPECT_EQ(report.quantized, 14);
  const ModelFiles m = open_model(dir / "out");
  EXPECT_EQ(m.files.size() > 1, k.shard < 100000);
  EXPECT_EQ(get_file(dir / "out/tokenizer.json"), "{}");
  EXPECT_EQ(m.weights->list().size(), 21u);
  for (const CheckpointItem& item : items) {
    const quant::Weight want = item.make(), got = m.weights->read(item.name);
    EXPECT_EQ(got.describe(), want.describe()) << item.name;
    EXPECT_EQ(values_of(got), values_of(want)) << item.name;
  }
  // Every part lies where it can be used without a copy.
  for (const std::string& file : m.files)
    for (const auto& e : SafetensorsFile::open(file).entries)
      EXPECT_TRUE(e.dtype != "F32" || reinterpret_cast<uintptr_t>(e.data.data()) % 4 == 0) << e.name;
}

INSTANTIATE_TEST_SUITE_P(Formats, BnbCheckpoint,
                         ::testing::Values(Kind{"nf4", true, 64, 1 << 30}, Kind{"nf4", false, 64, 1 << 30},
                                           Kind{"fp4", true, 128, 1 << 30}, Kind{"nf4", true, 4096, 20000},
                                           Kind{"int8", false, 64, 1 << 30}));

TEST(BnbCheckpointFile, SaysWhatTransformersNeeds) {
  TempDir dir;
  write_bnb_checkpoint(dir / "out", tiny_items("nf4", true), tiny_config(), {}, {});
  const Json c = parse_json(read_file(dir / "out/config.json"), "config");
  EXPECT_EQ(c["dtype"], "float32");
  EXPECT_EQ(c["hidden_size"], 64);
  const Json& q = c["quantization_config"];
  EXPECT_EQ(q["quant_method"], "bitsandbytes");
  EXPECT_EQ(q["load_in_4bit"], true);
  EXPECT_EQ(q["bnb_4bit_quant_type"], "nf4");
  EXPECT_EQ(q["bnb_4bit_use_double_quant"], true);
  EXPECT_EQ(q["llm_int8_skip_modules"], Json::array({"lm_head"}));
  const auto file = SafetensorsFile::open(dir / "out/model.safetensors");
  const auto theirs = SafetensorsFile::open(golden("tiny_llama/nf4/model.safetensors"));
  ASSERT_EQ(file.entries.size(), theirs.entries.size());
  int64_t codes = 0;
  for (const auto& e : theirs.entries) {
    const auto* ours = file.find(e.name);
    ASSERT_NE(ours, nullptr) << e.name;
    EXPECT_EQ(ours->dtype, e.dtype) << e.name;
    if (e.name.find("quant_state") != std::string::npos) continue;
    EXPECT_EQ(ours->shape, e.shape) << e.name;
    // Codes of values and all that is not nested equal Transformers' bytes; nested codes may be one off (its
    // CPU table).
    if (e.name.ends_with("proj.weight")) {
      EXPECT_TRUE(std::equal(e.data.begin(), e.data.end(), ours->data.begin())) << e.name;
      ++codes;
    }
  }
  EXPECT_EQ(codes, 14);
}

TEST(BnbCheckpointFile, DecodesToF32WhateverItIsComputedIn) {
  TempDir dir;
  auto items = tiny_items("nf4", true);
  for (CheckpointItem& item : items)
    if (item.format != nullptr) item.dtype = kBF16;
  write_bnb_checkpoint(dir / "out", items, tiny_config(), {}, {});
  const auto file = SafetensorsFile::open(dir / "out/model.safetensors");
  int64_t states = 0;
  for (const auto& e : file.entries) {
    if (e.name.find("quant_state") == std::string::npos) continue;
    ++states;
    const std::string state(reinterpret_cast<const char*>(e.data.data()), e.data.size());
    EXPECT_EQ(parse_json(state, e.name)["dtype"], "float32") << e.name;
  }
  EXPECT_EQ(states, 14);
}

TEST(BnbCheckpointFile, RefusesWhatCannotBeLoaded) {
  TempDir dir;
  EXPECT_ERROR(write_bnb_checkpoint(dir / "a", tiny_items("e2m1", false), tiny_config(), {}, {}),
               "Transformers loads nf4, fp4 and int8 checkpoints; e2m1 lives in nibble alone");
  EXPECT_ERROR(write_bnb_checkpoint(dir / "a", {}, tiny_config(), {}, {}), "without tensors");
  auto items = tiny_items("nf4", true);
  for (auto& item : items)
    if (item.format != nullptr) {
      item.double_quant = false;
      break;
    }
  EXPECT_ERROR(write_bnb_checkpoint(dir / "a", items, tiny_config(), {}, {}), "checkpoints hold one format");
  items = tiny_items("nf4", true);
  items[0].shape = {96, 32};
  EXPECT_ERROR(write_bnb_checkpoint(dir / "a", items, tiny_config(), {}, {}), "was announced as");
  EXPECT_FALSE(fs::exists(dir / "a/config.json"));
  EXPECT_FALSE(fs::exists(dir / "a/model.safetensors"));
  fs::create_directories(dir / "b");
  put_file(dir / "b/config.json", "mine");
  EXPECT_ERROR(write_bnb_checkpoint(dir / "b", tiny_items("nf4", true), tiny_config(), {}, {}),
               "holds a config.json already");
  EXPECT_EQ(get_file(dir / "b/config.json"), "mine");
}

TEST(BnbCheckpointFile, AFullDiskLeavesNothingThatLooksLikeAModel) {
  TempDir dir;
  const auto items = tiny_items("nf4", true);
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{26'000, 26'000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    const std::string message =
        error_of([&] { write_bnb_checkpoint(dir / "a", items, tiny_config(), {}, {}, 25'000); });
    ::_exit(message.find("cannot write") != std::string::npos ? 0 : 4);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_TRUE(!fs::exists(dir / "a") || fs::is_empty(dir / "a"));
}

}  // namespace
}  // namespace nibble::io
