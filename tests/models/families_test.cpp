// Every decoder-only family against Transformers and PEFT, on the checkpoints of tests/goldens/families: one
// list of cases, each of which goes through loading, logits, gradients, checkpointing, the cache, all formats
// and export.
#include <unistd.h>

#include <filesystem>

#include "backend/kernels/elementwise.h"
#include "base/file.h"
#include "quant/format.h"
#include "tests/models/golden.h"

namespace nibble::models::test {
namespace {

namespace fs = std::filesystem;
using autograd::Checkpointing;
using testing::HasSubstr;

const std::string kFamilies = std::string(NIBBLE_SOURCE_DIR) + "/tests/goldens/families/";
constexpr int64_t kVocab = 96;

class Family : public testing::TestWithParam<const char*> {
 protected:
  Family()
      : directory(kFamilies + GetParam()),
        golden(io::SafetensorsFile::open(directory + "/golden.safetensors")),
        cases(read_json(kFamilies + "cases.json")),
        batch(batch_of(cases["sequences"], cases["labels"])) {}
  io::ModelFiles files() const { return io::open_model(directory); }
  io::AdapterFile adapter() const { return io::read_adapter(directory + "/adapter"); }
  double loss(const char* which) const { return cases["losses"][GetParam()][which].get<double>(); }

  std::string directory;
  io::SafetensorsFile golden;
  Json cases;
  Batch batch;
};

TEST_P(Family, LogitsAndLoraGradientsEqualTransformersAndPeft) {
  Loaded run(files());
  const double base =
      max_difference(logits_of(run, batch.ids, batch.lengths), to_vector(golden.tensor("logits.base")));
  nn::attach_adapter(run.visit(), adapter(), 0, *run.allocator);
  run.use(0);
  const double tuned =
      max_difference(logits_of(run, batch.ids, batch.lengths), to_vector(golden.tensor("logits.adapter")));
  EXPECT_LT(base, 1e-4);
  EXPECT_LT(tuned, 1e-4);

  EXPECT_NEAR(loss_and_gradients(run, batch), loss("loss"), 1e-5);
  const double worst = expect_golden_gradients(golden, adapter_parameters(run, 0));
  RecordProperty("worst", fmt::format("{:.1e} {:.1e} {:.1e}", base, tuned, worst));
}

TEST_P(Family, EveryGradientOfFullFineTuningEqualsTransformers) {
  Loaded run(files());
  run.model->make_trainable(*run.allocator);
  EXPECT_NEAR(loss_and_gradients(run, batch), loss("base_loss"), 1e-5);
  const double worst = expect_golden_full_gradients(golden, *run.model, [](const std::string& name) {
    return name.ends_with("k_proj.bias") &&
           !name.starts_with("model.layers");  // of OPT, which does not rotate keys
  });
  RecordProperty("worst", fmt::format("{:.1e}", worst));
}

Step step_of(const io::ModelFiles& files, const io::AdapterFile* adapter, const Batch& batch, DType compute,
             Checkpointing checkpointing, const std::shared_ptr<Allocator>& memory = make_host_allocator()) {
  Loaded run(files, compute, options_of(compute, adapter != nullptr ? "nf4" : "none", true), memory);
  const auto parameters = prepare_step(run, adapter, checkpointing);
  return record_step(*memory, parameters, [&] { return loss_and_gradients(run, batch); });
}

TEST_P(Family, CheckpointingChangesNothingAndThePlanSeesEveryAllocation) {
  const io::AdapterFile pairs = adapter();
  for (const io::AdapterFile* lora : {&pairs, static_cast<const io::AdapterFile*>(nullptr)})
    for (const DType compute : {kF32, kBF16}) {
      const Step none = step_of(files(), lora, batch, compute, Checkpointing::kNone);
      ASSERT_FALSE(none.gradients.empty());
      for (const auto policy : {Checkpointing::kNone, Checkpointing::kSelective, Checkpointing::kBlock}) {
        SCOPED_TRACE(fmt::format("{} {} {}", lora != nullptr ? "lora" : "full", dtype_name(compute),
                                 static_cast<int>(policy)));
        const Step real = step_of(files(), lora, batch, compute, policy);
        EXPECT_TRUE(real == none);
        const Step shapes = step_of(files(), lora, batch, compute, policy, make_meta_allocator());
        expect_same_allocations(real, shapes);
      }
    }
}

// A prompt at once, then a few tokens, then one by one: the logits of one full pass.
TEST_P(Family, CacheEqualsTheFullPass) {
  Loaded run(files());
  nn::attach_adapter(run.visit(), adapter(), 0, *run.allocator);
  run.use(0);
  const std::vector<int32_t> text(batch.ids.begin(), batch.ids.begin() + batch.lengths[0]);
  const auto full = logits_of(run, text, {batch.lengths[0]});
  // Frequencies that depend on the length so far are another model's for a prefix; its own keys stay as they
  // were.
  if (std::string(GetParam()) == "phi3_longrope")
    GTEST_SKIP() << "a cache keeps keys turned by the short factors";
  nn::KvCache cache(*run.allocator, run.model->config().layers, 2, 20, run.model->kv_width(), kF32);
  std::vector<float> got;
  size_t at = 0;
  for (const size_t take : {size_t{7}, size_t{5}, size_t{1}, size_t{1}, size_t{3}}) {
    const std::vector<int32_t> ids(text.begin() + static_cast<std::ptrdiff_t>(at),
                                   text.begin() + static_cast<std::ptrdiff_t>(at + take));
    const auto input = nn::cached_input(*run.allocator, cache, {1}, {ids});
    const auto out =
        to_vector(run.model->logits(run.cx, run.model->forward(run.cx, input, &cache), Tensor()));
    nn::commit(cache, {1}, {ids});
    got.insert(got.end(), out.begin(), out.end());
    at += take;
  }
  ASSERT_EQ(at, text.size());
  EXPECT_LT(max_difference(got, full), 3e-5);
}

TEST_P(Family, QuantizesInEveryFormat) {
  Loaded dense(files());
  const auto exact = logits_of(dense, batch.ids, batch.lengths);
  for (const char* format : {"int8", "nf4", "fp4", "e2m1", "e3m0", "int4", "af4"}) {
    Loaded run(files(), kF32, options_of(kF32, format, std::string(format) != "int8"));
    run.model->visit_linears([&](const nn::Linear& linear) {
      EXPECT_EQ(linear.weight().is_dense(), nn::is_output_head(linear.name()))
          << linear.name() << " " << format;
    });
    const double error = relative_norm(logits_of(run, batch.ids, batch.lengths), exact);
    EXPECT_GT(error, 1e-4) << format;
    EXPECT_LT(error, std::string(format) == "int8" ? 0.05 : 0.8) << format;
  }
  // Named targets, and all of them.
  const io::AdapterFile pairs = adapter();
  io::AdapterConfig config;
  config.r = 2;
  for (const auto& targets : {std::vector<std::string>{"all-linear"}, pairs.config.target_modules}) {
    config.target_modules = targets;
    EXPECT_EQ(static_cast<size_t>(nn::attach_lora(dense.visit(), config, 1, 0, *dense.allocator)),
              pairs.pairs.size());
  }
}

TEST_P(Family, AdaptersAndWeightsAreWrittenAsTheyWereRead) {
  const fs::path out = fs::path(testing::TempDir()) / fmt::format("family_{}_{}", GetParam(), ::getpid());
  Loaded run(files());
  const io::AdapterFile pairs = adapter();
  nn::attach_adapter(run.visit(), pairs, 0, *run.allocator);
  io::write_adapter(out.string(), nn::adapter_file(run.visit(), pairs.config, 0));
  const auto written = io::SafetensorsFile::open((out / "adapter_model.safetensors").string()),
             read = io::SafetensorsFile::open(directory + "/adapter/adapter_model.safetensors");
  ASSERT_EQ(written.entries.size(), read.entries.size());
  for (const auto& entry : read.entries)
    EXPECT_EQ(to_vector(written.tensor(entry.name)), to_vector(read.tensor(entry.name))) << entry.name;
  EXPECT_EQ(read_json((out / "adapter_config.json").string())["fan_in_fan_out"],
            read_json(directory + "/adapter/adapter_config.json")["fan_in_fan_out"]);

  const io::SafetensorsFile stored = io::SafetensorsFile::open(directory + "/model.safetensors");
  std::vector<std::string> names, expected;
  run.model->visit_weights([&](const std::string& name, const quant::Weight& w) {
    names.push_back(name);
    EXPECT_EQ(w.shape, stored.tensor(name).shape()) << name;
    EXPECT_EQ(to_vector(w.dense), to_vector(stored.tensor(name))) << name;
  });
  for (const auto& entry : stored.entries) expected.push_back(entry.name);
  EXPECT_THAT(names, testing::UnorderedElementsAreArray(expected));
  fs::remove_all(out);
}

INSTANTIATE_TEST_SUITE_P(Cases, Family,
                         testing::Values("gpt_neox", "gpt_neox_sequential", "opt", "opt_350m", "opt_plain",
                                         "bloom", "bloom_six_heads", "gpt2", "gpt2_scales", "gpt2_plain",
                                         "qwen3", "phi3", "phi3_longrope", "gemma", "gemma2", "gemma3"),
                         [](const auto& test) { return std::string(test.param); });

// Published files of these families lack the prefix of the language model, and hold masks.
class Bare : public testing::TestWithParam<std::pair<const char*, const char*>> {};
TEST_P(Bare, CheckpointsLoadUnderTheirFullNames) {
  const auto& [name, prefix] = GetParam();
  const fs::path out = fs::path(testing::TempDir()) / fmt::format("bare_{}_{}", name, ::getpid());
  fs::create_directories(out);
  fs::copy_file(kFamilies + name + "/config.json", out / "config.json", fs::copy_options::overwrite_existing);
  const auto stored = io::SafetensorsFile::open(kFamilies + name + "/model.safetensors");
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const auto& entry : stored.entries)
    tensors.emplace_back(
        entry.name.starts_with(prefix) ? entry.name.substr(std::string(prefix).size()) : entry.name,
        stored.tensor(entry.name));
  const Tensor mask = Tensor::empty(host_allocator(), {1, 1, 4, 4}, kU8, "mask");
  tensors.emplace_back("h.0.attn.bias", mask);
  tensors.emplace_back("h.0.attn.masked_bias", Tensor::empty(host_allocator(), {}, kF32, "mask"));
  io::write_safetensors((out / "model.safetensors").string(), tensors, {{"format", "pt"}});

  const io::ModelFiles whole = io::open_model(kFamilies + name), bare = io::open_model(out.string());
  std::vector<std::string> names, expected;
  for (const auto& info : bare.weights->list()) names.push_back(info.name);
  for (const auto& info : whole.weights->list()) expected.push_back(info.name);
  EXPECT_THAT(names, testing::UnorderedElementsAreArray(expected));
  Loaded a(whole), b(bare);
  EXPECT_EQ(logits_of(a, {5, 9, 11}, {3}), logits_of(b, {5, 9, 11}, {3}));
  fs::remove_all(out);
}
INSTANTIATE_TEST_SUITE_P(Families, Bare,
                         testing::Values(std::pair{"gpt2", "transformer."},
                                         std::pair{"bloom", "transformer."}, std::pair{"opt_350m", "model."},
                                         std::pair{"gpt_neox", "gpt_neox."}),
                         [](const auto& test) { return std::string(test.param.first); });

// bitsandbytes stores GPT-2's products as [out, in], though the dense file has them as [in, out].
TEST(Gpt2, ReadsA4BitCheckpointOfTransformers) {
  const auto golden = io::SafetensorsFile::open(kFamilies + "gpt2/golden.safetensors");
  const Json cases = read_json(kFamilies + "cases.json");
  const Batch batch = batch_of(cases["sequences"], cases["labels"]);
  Loaded run(io::open_model(kFamilies + "gpt2/bnb"), kF32, options_of(kF32, "stored"));
  EXPECT_LT(max_difference(logits_of(run, batch.ids, batch.lengths), to_vector(golden.tensor("logits.bnb"))),
            1e-4);
}

class BadFamilyConfig : public testing::TestWithParam<BadKey> {};
TEST_P(BadFamilyConfig, IsAnErrorThatSaysSo) { expect_bad_key(kFamilies, GetParam()); }
INSTANTIATE_TEST_SUITE_P(
    Keys, BadFamilyConfig,
    testing::Values(
        BadKey{"gpt_neox", "num_attention_heads", 5, "cannot be divided into 5 heads"},
        BadKey{"gpt_neox", "hidden_act", "tanh",
               "hidden_act \"tanh\" is not supported; known are relu, gelu"},
        BadKey{"gpt_neox", "attention_bias", false, "is in the file, but config.json says there is none"},
        BadKey{"gpt_neox", "rope_parameters", Json{{"partial_rotary_factor", 1.5}},
               "partial_rotary_factor should be"},
        BadKey{"opt", "word_embed_proj_dim", 16, "model.decoder.embed_tokens.weight"},
        BadKey{"opt", "max_position_embeddings", 41, "model.decoder.embed_positions.weight"},
        BadKey{"opt", "activation_function", 3, "\"activation_function\" should be"},
        BadKey{"bloom", "n_head", 0, "\"n_head\" should be positive"},
        BadKey{"bloom", "layer_norm_epsilon", -1, "layer_norm_epsilon should be a small positive number"},
        BadKey{"gpt2", "n_inner", 64, "transformer.h.0.mlp.c_fc.weight"},
        BadKey{"gpt2", "add_cross_attention", true, "add_cross_attention is set"},
        BadKey{"gemma2", "query_pre_attn_scalar", 0, "query_pre_attn_scalar should be positive"},
        BadKey{"gemma2", "attn_logit_softcapping", -2, "attn_logit_softcapping should be positive"},
        BadKey{"gemma2", "layer_types", Json::array({"full_attention"}), "has 1 entries for 2 layers"},
        BadKey{"phi3_longrope", "rope_scaling",
               Json{{"rope_type", "longrope"},
                    {"short_factor", Json::array({1.0})},
                    {"partial_rotary_factor", 0.75}},
               "1 rope short_factor for 3 rotary pairs"}));

TEST(LearnedPositions, EndWithAMessage) {
  Loaded run(io::open_model(kFamilies + "opt"));
  try {
    logits_of(run, std::vector<int32_t>(41, 5), {41});
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("position 40 is beyond the 40 that this model has learned"));
  }
}

}  // namespace
}  // namespace nibble::models::test
