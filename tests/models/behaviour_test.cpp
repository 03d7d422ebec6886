// What a model must do whatever its numbers are: sequences do not see each other, a cache changes nothing,
// adapters keep to their tokens, full fine-tuning reaches every weight, a bad config is an error that says
// so.
#include "backend/kernels/matmul.h"
#include "models/llama_config.h"
#include "tests/models/tiny.h"

namespace nibble::models::test {
namespace {

using testing::HasSubstr;

// Two f32 sums of n products in different orders differ by at most ~2 n eps of the sum of magnitudes; over
// the widths (112), four products per layer, two layers and the head the logits (magnitude ~10) stay within
// this.
constexpr double kOrder = 2e-5;

Batch tiny_batch() {
  const Json cases = read_json(kTiny + "/cases.json");
  return batch_of(cases["sequences"], cases["labels"]);
}

std::vector<int32_t> part(const std::vector<int32_t>& v, size_t begin, size_t end) {
  return {v.begin() + static_cast<std::ptrdiff_t>(begin), v.begin() + static_cast<std::ptrdiff_t>(end)};
}

TEST(Packing, SequencesDoNotSeeEachOther) {
  Loaded run(io::open_model(kTiny));
  const Batch b = tiny_batch();
  const auto packed = logits_of(run, b.ids, b.lengths);
  const auto n = static_cast<size_t>(b.lengths[0]);
  auto apart = logits_of(run, part(b.ids, 0, n), {b.lengths[0]});
  const auto second = logits_of(run, part(b.ids, n, b.ids.size()), {b.lengths[1]});
  apart.insert(apart.end(), second.begin(), second.end());
  EXPECT_LT(max_difference(packed, apart), kOrder);
  // As one sequence the second half does see the first.
  EXPECT_GT(max_difference(packed, logits_of(run, b.ids, {static_cast<int32_t>(b.ids.size())})), 0.1);
}

class Cache : public testing::TestWithParam<std::tuple<const char*, int>> {};

// A prompt at once, then two tokens, then one by one, in slots that are filled unevenly: the logits of one
// full pass.
TEST_P(Cache, EqualsTheFullPass) {
  const auto [quantize, window] = GetParam();
  io::ModelFiles files = io::open_model(kTiny);
  files.config["model_type"] = "mistral";
  if (window > 0) files.config["sliding_window"] = window;
  Loaded run(files, kF32, options_of(kF32, quantize));
  nn::attach_adapter(run.visit(), tiny_adapter(), 0, *run.allocator);
  run.use(0);
  const Batch b = tiny_batch();
  const auto n = static_cast<size_t>(b.lengths[0]);
  const std::vector<std::vector<int32_t>> texts = {part(b.ids, n, b.ids.size()), part(b.ids, 0, n)};
  const std::vector<std::vector<float>> full = {logits_of(run, texts[0], {b.lengths[1]}),
                                                logits_of(run, texts[1], {b.lengths[0]})};

  nn::KvCache cache(*run.allocator, run.model->config().layers, 3, 24, run.model->kv_width(), kF32);
  const std::vector<int32_t> slots = {2, 0};
  std::vector<std::vector<float>> got(2);
  std::vector<size_t> at = {0, 0};
  for (const std::vector<size_t>& take :
       std::vector<std::vector<size_t>>{{3, 9}, {0, 2}, {1, 1}, {8, 12}, {1, 0}}) {
    std::vector<std::vector<int32_t>> ids;
    for (size_t s = 0; s < 2; ++s) ids.push_back(part(texts[s], at[s], at[s] + take[s]));
    const auto input = nn::cached_input(*run.allocator, cache, slots, ids);
    const auto out =
        to_vector(run.model->logits(run.cx, run.model->forward(run.cx, input, &cache), Tensor()));
    nn::commit(cache, slots, ids);
    size_t row = 0;
    for (size_t s = 0; s < 2; ++s)
      for (size_t t = 0; t < take[s]; ++t, ++row, ++at[s])
        got[s].insert(got[s].end(), out.begin() + static_cast<std::ptrdiff_t>(row * 96),
                      out.begin() + static_cast<std::ptrdiff_t>(row * 96 + 96));
  }
  EXPECT_EQ(at[0], 13u);
  EXPECT_EQ(at[1], 24u);
  EXPECT_LT(max_difference(got[0], full[0]), kOrder);
  EXPECT_LT(max_difference(got[1], full[1]), kOrder);
}
INSTANTIATE_TEST_SUITE_P(Formats, Cache,
                         testing::Combine(testing::Values("none", "nf4", "int8"), testing::Values(0, 5)));

TEST(Cache, OverflowIsAnError) {
  Loaded run(io::open_model(kTiny));
  nn::KvCache cache(*run.allocator, 2, 1, 4, run.model->kv_width(), kF32);
  try {
    nn::cached_input(*run.allocator, cache, {0}, {{1, 2, 3, 4, 5}});
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("5 more tokens after 0 do not fit a capacity of 4"));
  }
}

TEST(SlidingWindow, AMissingKeyIsTransformersDefault) {
  Json config = io::open_model(kTiny).config;
  const auto windows = [&](const char* type, const Json& window) {
    config["model_type"] = type;
    config.erase("sliding_window");
    if (!window.is_discarded()) config["sliding_window"] = window;
    return read_llama_config(config).windows;
  };
  const Json missing(Json::value_t::discarded);
  EXPECT_EQ(windows("mistral", missing), (std::vector<int64_t>{4096, 4096}));
  EXPECT_EQ(windows("mistral", nullptr), (std::vector<int64_t>{0, 0}));
  EXPECT_EQ(windows("mistral", 8), (std::vector<int64_t>{8, 8}));
  EXPECT_EQ(windows("llama", missing), (std::vector<int64_t>{0, 0}));
  EXPECT_EQ(windows("qwen2", missing), (std::vector<int64_t>{0, 0})) << "use_sliding_window is false";
  config["use_sliding_window"] = true;
  config["max_window_layers"] = 1;
  EXPECT_EQ(windows("qwen2", missing), (std::vector<int64_t>{0, 4096}));
}

TEST(Logits, OfPickedRows) {
  Loaded run(io::open_model(kTiny));
  const Batch b = tiny_batch();
  const auto h = run.model->forward(run.cx, nn::packed_input(*run.allocator, b.ids, b.lengths), nullptr);
  const auto all = to_vector(run.model->logits(run.cx, h, Tensor()));
  const auto picked = to_vector(run.model->logits(run.cx, h, i32({0, 23, 36}, *run.allocator)));
  ASSERT_EQ(picked.size(), 3u * 96);
  for (const auto& [row, at] : std::vector<std::pair<size_t, size_t>>{{0, 0}, {23, 1}, {36, 2}})
    for (size_t i = 0; i < 96; ++i) EXPECT_NEAR(picked[at * 96 + i], all[row * 96 + i], kOrder);
}

TEST(Bf16, StaysNearF32) {
  const Batch b = tiny_batch();
  Loaded wide(io::open_model(kTiny));
  Loaded narrow(io::open_model(kTiny), kBF16, options_of(kBF16));
  EXPECT_LT(relative_norm(logits_of(narrow, b.ids, b.lengths), logits_of(wide, b.ids, b.lengths)), 0.03);
}

// A model with quantized linears multiplies the head it keeps in 16 bits as it does those: loss and gradient
// are those of the head as floats but for less than bf16 rounds away. A base of 16 bits has floats
// throughout.
TEST(Head, OfAQuantizedModelIsMultipliedAsItsLinears) {
  for (const char* format : {"none", "nf4"}) {
    Loaded run(io::open_model(kTiny), kBF16, options_of(kBF16, format));
    const ops::LinearArgs head = run.model->head(run.cx, 20);
    ASSERT_TRUE(head.weight->is_dense());
    const bool quantized = std::string(format) != "none";
    EXPECT_EQ(head.weight->beside_quantized, quantized);
    quant::Weight alone = *head.weight;
    alone.beside_quantized = false;

    const int64_t width = run.model->config().width;
    const Tensor h = Tensor::empty(*run.allocator, {20, width}, kBF16, "h");
    for (int64_t i = 0; i < h.numel(); ++i)
      h.data<BFloat16>()[i] = to_bf16(std::sin(static_cast<float>(i * i)));
    std::vector<int32_t> every(20), labels(20);
    for (int32_t i = 0; i < 20; ++i) {
      every[static_cast<size_t>(i)] = i;
      labels[static_cast<size_t>(i)] = i * 7 % 96;
    }
    const auto gradient = [&](const quant::Weight& w, std::vector<float>& losses) {
      autograd::Tape tape;
      run.cx.set_tape(&tape);
      const Variable x(h, run.cx.new_slot(h.shape(), kBF16));
      ops::LinearArgs args = head;
      args.weight = &w;
      const ops::HeadLoss loss = ops::head_cross_entropy(run.cx, x, args, i32(every, *run.allocator),
                                                         i32(labels, *run.allocator), 0.05f, 7);
      losses = to_vector(loss.token_losses);
      Tensor dy = Tensor::empty(*run.allocator, {1}, kF32, "dy");
      *dy.data<float>() = 1;
      tape.backward(run.cx, loss.loss, dy);
      run.cx.set_tape(nullptr);
      return to_vector(x.slot()->grad);
    };
    std::vector<float> fixed_losses, float_losses;
    const auto fixed = gradient(*head.weight, fixed_losses), floats = gradient(alone, float_losses);
    const bool differ =
        quantized && backend::fixed_point_of(Device::kCpu, kBF16, false) != backend::FixedPoint::kNone;
    EXPECT_EQ(fixed_losses != float_losses, differ) << format;
    EXPECT_LT(relative_norm(fixed_losses, float_losses), 0x1.0p-9) << format;
    EXPECT_LT(relative_norm(fixed, floats), 0x1.0p-9 + 0x1.0p-9) << format << ": one more rounding to bf16";
  }
}

// Adapters 0 and 1 on one packed stream: logits and gradients are those of two streams with one adapter each.
TEST(Adapters, KeepToTheirTokens) {
  const Batch b = tiny_batch();
  const auto n = static_cast<size_t>(b.lengths[0]);
  io::AdapterConfig config = tiny_adapter().config;
  config.use_rslora = true;
  const auto make = [&] {
    auto run = std::make_unique<Loaded>(io::open_model(kTiny));
    nn::attach_adapter(run->visit(), tiny_adapter(), 0, *run->allocator);
    nn::attach_lora(run->visit(), config, 1, 9, *run->allocator);
    // B of a fresh adapter is zero: give it something to do.
    run->model->visit_linears([](nn::Linear& l) {
      if (nn::LoraPair* pair = l.adapter(1))
        std::fill_n(pair->b.variable.value().data<float>(), pair->b.variable.shape().numel(), 0.05f);
    });
    return run;
  };
  const auto together = make();
  together->cx.adapters = {{0, b.lengths[0], 0}, {b.lengths[0], int64_t{1} << 40, 1}};
  const float loss = loss_and_gradients(*together, b);
  auto logits = logits_of(*together, b.ids, b.lengths);

  const auto apart = make();
  Batch first = b, second = b;
  first.ids = part(b.ids, 0, n), second.ids = part(b.ids, n, b.ids.size());
  first.lengths = {b.lengths[0]}, second.lengths = {b.lengths[1]};
  first.rows.clear(), first.labels.clear(), second.rows.clear(), second.labels.clear();
  for (size_t i = 0; i < b.rows.size(); ++i) {
    Batch& to = b.rows[i] < b.lengths[0] ? first : second;
    to.rows.push_back(b.rows[i] - (&to == &second ? b.lengths[0] : 0));
    to.labels.push_back(b.labels[i]);
  }
  const double share = static_cast<double>(first.rows.size()) / static_cast<double>(b.rows.size());
  apart->use(0);
  const double loss_first = loss_and_gradients(*apart, first);
  auto alone = logits_of(*apart, first.ids, first.lengths);
  apart->use(1);
  const double loss_second = loss_and_gradients(*apart, second);
  const auto tail = logits_of(*apart, second.ids, second.lengths);
  alone.insert(alone.end(), tail.begin(), tail.end());

  EXPECT_LT(max_difference(logits, alone), kOrder);
  EXPECT_NEAR(loss, share * loss_first + (1 - share) * loss_second, 1e-5);
  for (const int id : {0, 1}) {
    const auto a = adapter_parameters(*together, id), c = adapter_parameters(*apart, id);
    for (size_t i = 0; i < a.size(); ++i) {
      auto expected = to_vector(c[i]->grad());
      for (float& g : expected) g *= static_cast<float>(id == 0 ? share : 1 - share);
      EXPECT_LT(relative_norm(to_vector(a[i]->grad()), expected), 1e-5) << id << " " << a[i]->name;
    }
  }
}

// An adapter on the head itself, beside all-linear ones, over chunks: against finite differences of the loss.
TEST(Adapters, OnTheHead) {
  const Batch b = tiny_batch();
  Loaded run(io::open_model(kTiny));
  io::AdapterConfig config;
  config.r = 2;
  config.target_modules = {"lm_head", "v_proj"};
  ASSERT_EQ(nn::attach_lora(run.visit(), config, 0, 1, *run.allocator), 3);
  run.model->visit_linears([](nn::Linear& l) {
    if (nn::LoraPair* pair = l.adapter(0))
      std::fill_n(pair->b.variable.value().data<float>(), pair->b.variable.shape().numel(), 0.03f);
  });
  run.use(0);
  loss_and_gradients(run, b);
  std::map<std::string, std::vector<float>> gradients;
  for (autograd::Parameter* p : adapter_parameters(run, 0)) gradients[p->name] = to_vector(p->grad());
  for (autograd::Parameter* p : adapter_parameters(run, 0)) {
    const std::vector<float>& gradient = gradients[p->name];
    const size_t at =
        static_cast<size_t>(std::max_element(gradient.begin(), gradient.end()) - gradient.begin());
    float& w = p->variable.value().data<float>()[at];
    const float keep = w, step = 1e-2f;
    w = keep + step;
    const double up = loss_and_gradients(run, b);
    w = keep - step;
    const double down = loss_and_gradients(run, b);
    w = keep;
    EXPECT_NEAR((up - down) / (2 * step), gradient[at], 2e-3 * std::abs(gradient[at]) + 5e-4) << p->name;
  }
}

class FullFineTuning : public testing::TestWithParam<const char*> {};

TEST_P(FullFineTuning, EveryGradientEqualsTransformers) {
  const std::string variant = GetParam(),
                    goldens = std::string(NIBBLE_SOURCE_DIR) + "/tests/goldens/tiny_llama_full/";
  io::ModelFiles files = io::open_model(kTiny);
  if (variant == "tied") files.config["tie_word_embeddings"] = true;
  if (variant == "biases") {
    files.config["attention_bias"] = files.config["mlp_bias"] = true;
    files.weights = std::make_shared<WithBiases>(files.weights, false);
  }
  Loaded run(files);
  run.model->make_trainable(*run.allocator);
  const float loss = loss_and_gradients(run, tiny_batch());
  EXPECT_NEAR(loss, read_json(goldens + "losses.json")[variant].get<double>(), 2e-5);
  const auto golden = io::SafetensorsFile::open(goldens + variant + ".safetensors");
  size_t seen = 0;
  double worst = 0;
  run.model->visit_parameters([&](autograd::Parameter& p) {
    ++seen;
    const std::vector<float> g = to_vector(p.grad());
    std::vector<float> sample;
    for (size_t i = 0; i < g.size(); i += std::max<size_t>(1, g.size() / 64)) sample.push_back(g[i]);
    double norm = 0;
    for (const float v : g) norm += double{v} * double{v};
    const double expected = to_vector(golden.tensor(p.name + ".norm"))[0];
    EXPECT_NEAR(std::sqrt(norm), expected, 1e-4 * expected) << p.name;
    const double error = relative_norm(sample, to_vector(golden.tensor(p.name + ".sample")));
    EXPECT_LT(error, 1e-3) << p.name;
    worst = std::max(worst, error);
  });
  EXPECT_EQ(2 * seen, golden.entries.size());
  RecordProperty("worst", fmt::format("{:.2e}", worst));
}
INSTANTIATE_TEST_SUITE_P(Variants, FullFineTuning, testing::Values("untied", "tied", "biases"),
                         [](const auto& test) { return std::string(test.param); });

TEST(Model, VisitsTheCheckpointsWeights) {
  const io::ModelFiles files = io::open_model(kTiny);
  Loaded run(files);
  std::vector<std::string> seen, stored;
  run.model->visit_weights([&](const std::string& name, const quant::Weight&) { seen.push_back(name); });
  for (const auto& info : files.weights->list()) stored.push_back(info.name);
  EXPECT_THAT(seen, testing::UnorderedElementsAreArray(stored));
  EXPECT_EQ(run.model->flops_per_token(), 2.0 * 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 112));
  EXPECT_EQ(run.model->weight_bytes(),
            4 * (2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 112 + 2 * 64) + 64 + 2 * 96 * 64));
}

struct Bad {
  const char* key;
  Json value;
  const char* message;
};
class BadConfig : public testing::TestWithParam<Bad> {};
TEST_P(BadConfig, IsAnErrorThatSaysSo) {
  io::ModelFiles files = io::open_model(kTiny);
  files.config[GetParam().key] = GetParam().value;
  try {
    Loaded run(files);
    FAIL() << GetParam().key;
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr(GetParam().message));
  }
}
INSTANTIATE_TEST_SUITE_P(
    Keys, BadConfig,
    testing::Values(Bad{"num_key_value_heads", 3, "3 key/value heads do not divide 4 attention heads"},
                    Bad{"hidden_act", "quick_gelu", "hidden_act \"quick_gelu\" is not supported"},
                    Bad{"head_dim", 15, "an even head width, got 15"},
                    Bad{"hidden_size", -64, "\"hidden_size\" should be positive"},
                    Bad{"hidden_size", "64", "\"hidden_size\" should be a whole number"},
                    Bad{"hidden_size", 128, "[96, 64]"}, Bad{"vocab_size", 97, "model.embed_tokens.weight"},
                    Bad{"num_hidden_layers", 3, "model.layers.2"},
                    Bad{"num_hidden_layers", 2'000'000'000, "is 2000000000; at most 10000"},
                    Bad{"attention_bias", true, "q_proj.bias"}, Bad{"rms_norm_eps", 0, "rms_norm_eps"},
                    Bad{"rope_theta", -1, "rope_theta"},
                    Bad{"rope_scaling", Json{{"rope_type", "spiral"}}, "unknown rope_type \"spiral\""},
                    Bad{"architectures", Json::array({"MambaForCausalLM"}),
                        "\"MambaForCausalLM\" is not known; known are LlamaForCausalLM"}));

TEST(BadConfig, WidthThatHeadsDoNotDivide) {
  io::ModelFiles files = io::open_model(kTiny);
  files.config["num_attention_heads"] = 6;
  files.config["head_dim"] = nullptr;
  try {
    Loaded run(files);
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("hidden_size 64 cannot be divided into 6 heads"));
  }
}

TEST(BadInput, TokensBeyondTheVocabulary) {
  Loaded run(io::open_model(kTiny));
  try {
    logits_of(run, {1, 96}, {2});
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("token 1 has id 96, the model knows 96"));
  }
}

// The published 260K-parameter story model reads its own kind of text better than chance by far.
TEST(Stories260K, KnowsStories) {
  const std::string path =
      std::string(NIBBLE_SOURCE_DIR) + "/../shared/data/models/stories260K/stories260K.bin";
  if (!std::ifstream(path)) GTEST_SKIP() << path << " is not there";
  Loaded run(io::open_model(path));
  // BOS, then greedy: the model's own text, which it must find likely.
  nn::KvCache cache(*run.allocator, run.model->config().layers, 1, 64, run.model->kv_width(), kF32);
  std::vector<int32_t> next = {1};
  double nll = 0;
  for (int t = 0; t < 40; ++t) {
    const auto input = nn::cached_input(*run.allocator, cache, {0}, {next});
    const auto scores =
        to_vector(run.model->logits(run.cx, run.model->forward(run.cx, input, &cache), Tensor()));
    nn::commit(cache, {0}, {next});
    const auto best = std::max_element(scores.begin(), scores.end());
    double sum = 0;
    for (const float s : scores) sum += std::exp(double{s} - *best);
    nll += std::log(sum);
    next = {static_cast<int32_t>(best - scores.begin())};
  }
  EXPECT_LT(nll / 40, 1.5);  // chance is ln 512 = 6.2
}

}  // namespace
}  // namespace nibble::models::test
