// T5 and T5 v1.1 against Transformers and PEFT, on the checkpoints of tests/goldens/t5.
#include <unistd.h>

#include <filesystem>

#include "base/parallel.h"
#include "tests/message_of.h"
#include "tests/models/golden.h"

namespace nibble::models::test {
namespace {

namespace fs = std::filesystem;
using autograd::Checkpointing;
using testing::HasSubstr;

const std::string kT5 = std::string(NIBBLE_SOURCE_DIR) + "/tests/goldens/t5/";

// Pairs of source and target; of a target the decoder reads the start token and all but the last.
struct Pairs {
  std::vector<std::vector<int32_t>> sources, targets;
};

Pairs pairs_of(const Json& cases) {
  return {cases["sources"].get<std::vector<std::vector<int32_t>>>(),
          cases["targets"].get<std::vector<std::vector<int32_t>>>()};
}

struct Seq2Seq : Loaded {
  using Loaded::Loaded;
  nn::SequenceInput input(const Pairs& pairs) {
    std::vector<int32_t> ids, lengths, sources, source_lengths;
    for (size_t i = 0; i < pairs.targets.size(); ++i) {
      const auto &source = pairs.sources[i], &target = pairs.targets[i];
      ids.push_back(static_cast<int32_t>(model->config().start_token));
      ids.insert(ids.end(), target.begin(), target.end() - 1);
      lengths.push_back(static_cast<int32_t>(target.size()));
      sources.insert(sources.end(), source.begin(), source.end());
      source_lengths.push_back(static_cast<int32_t>(source.size()));
    }
    nn::SequenceInput in = nn::packed_input(*allocator, ids, lengths);
    nn::add_sources(*allocator, in, lengths, sources, source_lengths);
    return in;
  }
  std::vector<float> logits(const Pairs& pairs) {
    return to_vector(model->logits(cx, model->forward(cx, input(pairs), nullptr), Tensor()));
  }
  // Mean loss over the targets' tokens; gradients are left in the parameters.
  float step(const Pairs& pairs) {
    std::vector<int32_t> rows, labels;
    for (const auto& target : pairs.targets) labels.insert(labels.end(), target.begin(), target.end());
    for (size_t i = 0; i < labels.size(); ++i) rows.push_back(static_cast<int32_t>(i));
    const Tensor r = i32(rows, *allocator), l = i32(labels, *allocator);
    Tensor dy = Tensor::empty(*allocator, {1}, kF32, "dy");
    if (dy.raw() != nullptr) *dy.data<float>() = 1;
    autograd::Tape tape;
    cx.set_tape(&tape);
    const Variable h = model->forward(cx, input(pairs), nullptr);
    const Variable loss = ops::head_cross_entropy(cx, h, model->head(cx, h.size(0)), r, l,
                                                  1.0f / static_cast<float>(rows.size()), 7)
                              .loss;
    tape.backward(cx, loss, dy);
    cx.set_tape(nullptr);
    return loss.value().raw() == nullptr ? 0 : *loss.value().data<float>();
  }
};

class T5 : public testing::TestWithParam<const char*> {
 protected:
  T5()
      : directory(kT5 + GetParam()),
        golden(io::SafetensorsFile::open(directory + "/golden.safetensors")),
        cases(read_json(kT5 + "cases.json")),
        pairs(pairs_of(cases)) {}
  io::ModelFiles files() const { return io::open_model(directory); }
  io::AdapterFile adapter() const { return io::read_adapter(directory + "/adapter"); }
  Json report() const { return cases["cases"][GetParam()]; }

  std::string directory;
  io::SafetensorsFile golden;
  Json cases;
  Pairs pairs;
};

TEST_P(T5, LogitsAndLoraGradientsEqualTransformersAndPeft) {
  Seq2Seq run(files());
  const double base = max_difference(run.logits(pairs), to_vector(golden.tensor("logits.base")));
  nn::attach_adapter(run.visit(), adapter(), 0, *run.allocator);
  run.use(0);
  const double tuned = max_difference(run.logits(pairs), to_vector(golden.tensor("logits.adapter")));
  EXPECT_LT(base, 1e-4);
  EXPECT_LT(tuned, 1e-4);
  EXPECT_NEAR(run.step(pairs), report()["loss"].get<double>(), 1e-5);
  const double worst = expect_golden_gradients(golden, adapter_parameters(run, 0));
  RecordProperty("worst", fmt::format("{:.1e} {:.1e} {:.1e}", base, tuned, worst));
}

TEST_P(T5, EveryGradientOfFullFineTuningEqualsTransformers) {
  Seq2Seq run(files());
  run.model->make_trainable(*run.allocator);
  EXPECT_NEAR(run.step(pairs), report()["base_loss"].get<double>(), 1e-5);
  const double worst =
      expect_golden_full_gradients(golden, *run.model, [](const std::string&) { return false; });
  RecordProperty("worst", fmt::format("{:.1e}", worst));
}

// With dropout in the model and in the adapter.
Step t5_step(const io::ModelFiles& files, const io::AdapterFile* adapter, const Pairs& pairs, DType compute,
             Checkpointing checkpointing, const std::shared_ptr<Allocator>& memory = make_host_allocator()) {
  Seq2Seq run(files, compute, options_of(compute, adapter != nullptr ? "nf4" : "none", true), memory);
  const auto parameters = prepare_step(run, adapter, checkpointing);
  return record_step(*memory, parameters, [&] { return run.step(pairs); });
}

TEST_P(T5, CheckpointingAndThreadsChangeNothingAndThePlanSeesEveryAllocation) {
  const io::AdapterFile file = adapter();
  for (const io::AdapterFile* lora : {&file, static_cast<const io::AdapterFile*>(nullptr)})
    for (const DType compute : {kF32, kBF16}) {
      set_threads(1);
      const Step none = t5_step(files(), lora, pairs, compute, Checkpointing::kNone);
      set_threads(2);
      ASSERT_FALSE(none.gradients.empty());
      for (const auto policy : {Checkpointing::kNone, Checkpointing::kSelective, Checkpointing::kBlock}) {
        SCOPED_TRACE(fmt::format("{} {} {}", lora != nullptr ? "lora" : "full", dtype_name(compute),
                                 static_cast<int>(policy)));
        const Step real = t5_step(files(), lora, pairs, compute, policy);
        EXPECT_TRUE(real == none);
        const Step shapes = t5_step(files(), lora, pairs, compute, policy, make_meta_allocator());
        expect_same_allocations(real, shapes);
      }
      set_threads(0);
    }
}

// A pair among others gives what it gives alone, to the last bit of f32 where rows go through the same
// kernels.
TEST_P(T5, PackedPairsDoNotSeeEachOther) {
  Seq2Seq run(files());
  const std::vector<float> together = run.logits(pairs);
  Pairs changed = pairs;
  for (int32_t& id : changed.sources[1]) id = 95 - id;
  for (int32_t& id : changed.targets[1]) id = 95 - id;
  const std::vector<float> other = run.logits(changed);
  const size_t vocab = 96, first = pairs.targets[0].size() * vocab,
               second = first + pairs.targets[1].size() * vocab;
  for (size_t i = 0; i < together.size(); ++i) {
    if (i >= first && i < second) continue;
    ASSERT_EQ(together[i], other[i]) << i;
  }
  EXPECT_FALSE(std::equal(together.begin() + static_cast<ptrdiff_t>(first),
                          together.begin() + static_cast<ptrdiff_t>(second),
                          other.begin() + static_cast<ptrdiff_t>(first)));
}

// The source once and then the target token by token, of two pairs at a time: the logits of the full pass.
TEST_P(T5, CacheEqualsTheFullPass) {
  Seq2Seq run(files());
  nn::attach_adapter(run.visit(), adapter(), 0, *run.allocator);
  run.use(0);
  const Pairs two{{pairs.sources[0], pairs.sources[1]}, {pairs.targets[0], pairs.targets[1]}};
  const std::vector<float> full = run.logits(two);
  const ModelConfig& c = run.model->config();
  nn::KvCache cache(*run.allocator, c.layers, 2, 20, run.model->kv_width(), kF32, 30);
  std::vector<std::vector<float>> rows(2);
  const auto feed = [&](const std::vector<int32_t>& slots, const std::vector<std::vector<int32_t>>& ids,
                        const std::vector<std::vector<int32_t>>& sources) {
    const auto in = nn::cached_input(*run.allocator, cache, slots, ids, sources);
    const auto got = to_vector(run.model->logits(run.cx, run.model->forward(run.cx, in, &cache), Tensor()));
    nn::commit(cache, slots, ids);
    size_t at = 0;
    for (size_t i = 0; i < slots.size(); ++i) {
      auto& to = rows[static_cast<size_t>(slots[i])];
      to.insert(to.end(), got.begin() + static_cast<ptrdiff_t>(at),
                got.begin() + static_cast<ptrdiff_t>(at + ids[i].size() * 96));
      at += ids[i].size() * 96;
    }
  };
  const auto start = static_cast<int32_t>(c.start_token);
  feed({1}, {{start}}, {two.sources[1]});
  feed({0, 1}, {{start, two.targets[0][0]}, {two.targets[1][0]}}, {two.sources[0], {}});
  for (size_t t = 1; t + 1 < two.targets[1].size(); ++t) {
    if (t + 1 < two.targets[0].size())
      feed({1, 0}, {{two.targets[1][t]}, {two.targets[0][t]}}, {});
    else
      feed({1}, {{two.targets[1][t]}}, {});
  }
  std::vector<float> all = rows[0];
  all.insert(all.end(), rows[1].begin(), rows[1].end());
  EXPECT_LT(max_difference(all, full), 3e-5);  // as of every family
}

TEST_P(T5, EveryProductQuantizesButTheHeadAndTheOneThatTransformersKeeps) {
  Seq2Seq dense(files());
  const auto exact = dense.logits(pairs);
  for (const char* format : {"int8", "nf4", "fp4", "e2m1", "e3m0", "int4", "af4"}) {
    Seq2Seq run(files(), kF32, options_of(kF32, format, std::string(format) != "int8"));
    run.model->visit_linears([&](const nn::Linear& l) {
      EXPECT_EQ(l.weight().is_dense(), l.name().ends_with(".wo") || l.name() == "lm_head") << l.name();
    });
    const double error = relative_norm(run.logits(pairs), exact);
    EXPECT_GT(error, 1e-4) << format;
    EXPECT_LT(error, 1.5) << format;
  }
  io::AdapterConfig config;
  config.r = 2;
  config.target_modules = {"all-linear"};
  EXPECT_EQ(static_cast<size_t>(nn::attach_lora(dense.visit(), config, 1, 0, *dense.allocator)),
            adapter().pairs.size());
}

TEST_P(T5, AdaptersAndWeightsAreWrittenAsTheyWereRead) {
  const fs::path out = fs::path(testing::TempDir()) / fmt::format("t5_{}_{}", GetParam(), ::getpid());
  Seq2Seq run(files());
  const io::AdapterFile file = adapter();
  nn::attach_adapter(run.visit(), file, 0, *run.allocator);
  io::write_adapter(out.string(), nn::adapter_file(run.visit(), file.config, 0));
  const auto written = io::SafetensorsFile::open((out / "adapter_model.safetensors").string()),
             read = io::SafetensorsFile::open(directory + "/adapter/adapter_model.safetensors");
  ASSERT_EQ(written.entries.size(), read.entries.size());
  for (const auto& entry : read.entries)
    EXPECT_EQ(to_vector(written.tensor(entry.name)), to_vector(read.tensor(entry.name))) << entry.name;
  EXPECT_EQ(read_json((out / "adapter_config.json").string())["task_type"], "SEQ_2_SEQ_LM");
  fs::remove_all(out);

  const io::SafetensorsFile stored = io::SafetensorsFile::open(directory + "/model.safetensors");
  std::vector<std::string> names, expected;
  run.model->visit_weights([&](const std::string& name, const quant::Weight& w) {
    names.push_back(name);
    EXPECT_EQ(w.shape, stored.tensor(name).shape()) << name;
    EXPECT_EQ(to_vector(w.dense), to_vector(stored.tensor(name))) << name;
  });
  for (const auto& entry : stored.entries) expected.push_back(entry.name);
  EXPECT_THAT(names, testing::UnorderedElementsAreArray(expected));
}

INSTANTIATE_TEST_SUITE_P(Cases, T5, testing::Values("v1_0", "v1_1", "tied_unscaled"),
                         [](const auto& test) { return std::string(test.param); });

TEST(T5Checkpoint, Of4BitsByTransformersIsRead) {
  const Json cases = read_json(kT5 + "cases.json");
  Seq2Seq run(io::open_model(kT5 + "v1_1/bnb"), kF32, options_of(kF32, "stored"));
  const auto golden = io::SafetensorsFile::open(kT5 + "v1_1/golden.safetensors");
  EXPECT_LT(max_difference(run.logits(pairs_of(cases)), to_vector(golden.tensor("logits.bnb"))), 1e-4);
  // The same products stay dense there and here.
  std::vector<std::string> dense;
  run.model->visit_linears([&](const nn::Linear& l) {
    if (l.stays_dense() || nn::is_output_head(l.name())) dense.push_back(l.name());
  });
  EXPECT_THAT(dense, testing::UnorderedElementsAreArray(
                         cases["cases"]["v1_1"]["dense_beside_4bit"].get<std::vector<std::string>>()));
}

// Sources of other names for the one table, and a file without a decoder.
TEST(T5Checkpoint, SaysWhatIsMissing) {
  const fs::path out = fs::path(testing::TempDir()) / fmt::format("t5_part_{}", ::getpid());
  const auto write = [&](const std::string& from, const std::string& to, const std::string& without) {
    fs::remove_all(out);
    fs::create_directories(out);
    fs::copy_file(kT5 + "v1_0/config.json", out / "config.json");
    const auto stored = io::SafetensorsFile::open(kT5 + "v1_0/model.safetensors");
    std::vector<std::pair<std::string, Tensor>> tensors;
    for (const auto& entry : stored.entries)
      if (without.empty() || !entry.name.starts_with(without))
        tensors.emplace_back(entry.name == from ? to : entry.name, stored.tensor(entry.name));
    io::write_safetensors((out / "model.safetensors").string(), tensors, {{"format", "pt"}});
    return io::open_model(out.string());
  };
  const Pairs pairs = pairs_of(read_json(kT5 + "cases.json"));
  Seq2Seq whole(io::open_model(kT5 + "v1_0")),
      renamed(write("shared.weight", "encoder.embed_tokens.weight", ""));
  EXPECT_EQ(renamed.logits(pairs), whole.logits(pairs));
  EXPECT_THAT(message_of([&] { Seq2Seq run(write("", "", "decoder.")); }),
              HasSubstr("decoder.block.0.layer.0"));
  fs::remove_all(out);
  const auto bare = nn::packed_input(*whole.allocator, {5, 6}, {2});
  EXPECT_THAT(message_of([&] { whole.model->forward(whole.cx, bare, nullptr); }),
              HasSubstr("writes after reading a source, and there is none"));
}

class BadT5Config : public testing::TestWithParam<BadKey> {};
TEST_P(BadT5Config, IsAnErrorThatSaysSo) { expect_bad_key(kT5, GetParam()); }
INSTANTIATE_TEST_SUITE_P(
    Keys, BadT5Config,
    testing::Values(BadKey{"v1_1", "feed_forward_proj", "gated-mish",
                           "feed_forward_proj \"mish\" is not supported; known are"},
                    BadKey{"v1_1", "feed_forward_proj", "relu",
                           "encoder.block.0.layer.1.DenseReluDense.wi.weight"},
                    BadKey{"v1_1", "relative_attention_num_buckets", 7, "relative_attention_num_buckets 7"},
                    BadKey{"v1_1", "relative_attention_max_distance", 2, "relative_attention_max_distance 2"},
                    BadKey{"v1_1", "relative_attention_num_buckets", 16, "relative_attention_bias.weight"},
                    BadKey{"v1_1", "dropout_rate", 1, "dropout_rate should be at least 0 and below 1"},
                    BadKey{"v1_1", "decoder_start_token_id", 96, "decoder_start_token_id is 96"},
                    BadKey{"v1_1", "d_kv", 0, "\"d_kv\" should be positive"},
                    BadKey{"v1_1", "num_decoder_layers", 4, "decoder.block.3.layer.0"}));

}  // namespace
}  // namespace nibble::models::test
