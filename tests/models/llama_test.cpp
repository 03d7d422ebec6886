#include "backend/kernels/elementwise.h"
#include "backend/kernels/optimizer.h"
#include "tests/models/golden.h"

namespace nibble::models::test {
namespace {

TEST(Llama, LogitsEqualTransformers) {
  const Json cases = read_json(kTiny + "/cases.json");
  const Batch batch = batch_of(cases["sequences"], cases["labels"]);
  const auto golden = io::SafetensorsFile::open(kTiny + "/dense.safetensors");
  Loaded run(io::open_model(kTiny));
  const double worst =
      max_difference(logits_of(run, batch.ids, batch.lengths), to_vector(golden.tensor("logits.base")));
  RecordProperty("worst", std::to_string(worst));
  EXPECT_LT(worst, 1e-4);
}

struct Base {
  const char* name;  // in cases.json, and of the file of tensors
  const char* directory;
  const char* quantize;
};
class Adapter : public testing::TestWithParam<Base> {
 protected:
  Adapter()
      : cases(read_json(kTiny + "/cases.json")),
        batch(batch_of(cases["sequences"], cases["labels"])),
        golden(io::SafetensorsFile::open(kTiny + "/" + GetParam().name + ".safetensors")),
        run(io::open_model(kTiny + GetParam().directory), kF32, options_of(kF32, GetParam().quantize)) {
    nn::attach_adapter(run.visit(), tiny_adapter(), 0, *run.allocator);
  }
  Json cases;
  Batch batch;
  io::SafetensorsFile golden;
  Loaded run;
};

TEST_P(Adapter, LogitsWithAndWithoutEqualPeft) {
  const double base =
      max_difference(logits_of(run, batch.ids, batch.lengths), to_vector(golden.tensor("logits.base")));
  run.use(0);
  const double tuned =
      max_difference(logits_of(run, batch.ids, batch.lengths), to_vector(golden.tensor("logits.adapter")));
  RecordProperty("worst", std::to_string(base) + " " + std::to_string(tuned));
  EXPECT_LT(base, 1e-4);
  EXPECT_LT(tuned, 1e-4);
}

TEST_P(Adapter, GradientsEqualPeft) {
  run.use(0);
  const float loss = loss_and_gradients(run, batch);
  EXPECT_NEAR(loss, cases[GetParam().name]["losses"][0].get<double>(), 1e-5);
  const auto parameters = adapter_parameters(run, 0);
  ASSERT_EQ(parameters.size(), 28u);
  const double worst = expect_golden_gradients(golden, parameters);
  RecordProperty("worst", fmt::format("{:.2e}", worst));
}

TEST_P(Adapter, TenStepsOfAdamWEqualTorch) {
  run.use(0);
  const auto parameters = adapter_parameters(run, 0);
  const Json& losses = cases[GetParam().name]["losses"];
  const Json& norms = cases[GetParam().name]["grad_norms"];
  std::vector<std::pair<Tensor, Tensor>> state;
  for (autograd::Parameter* p : parameters) {
    const Shape& shape = p->variable.shape();
    state.emplace_back(Tensor::empty(*run.allocator, shape, kF32, "m"),
                       Tensor::empty(*run.allocator, shape, kF32, "v"));
    backend::fill(run.stream, state.back().first, 0);
    backend::fill(run.stream, state.back().second, 0);
  }
  double worst = 0;
  for (int step = 0; step <= 10; ++step) {
    const double loss = loss_and_gradients(run, batch);
    EXPECT_NEAR(loss, losses[static_cast<size_t>(step)].get<double>(), 1e-4) << "step " << step;
    worst = std::max(worst, std::abs(loss - losses[static_cast<size_t>(step)].get<double>()));
    if (step == 10) break;
    double squares = 0;
    for (autograd::Parameter* p : parameters)
      for (const float g : to_vector(p->grad())) squares += double{g} * double{g};
    const double norm = std::sqrt(squares);
    EXPECT_NEAR(norm, norms[static_cast<size_t>(step)].get<double>(), 1e-4);
    const auto scale = static_cast<float>(std::min(1.0, 0.3 / (norm + 1e-6)));
    for (size_t i = 0; i < parameters.size(); ++i) {
      Tensor p = parameters[i]->variable.value();
      backend::adamw(run.stream, p, parameters[i]->grad(), state[i].first, state[i].second,
                     {1e-3f, 0.9f, 0.999f, 1e-8f, 0.0f, scale, step + 1});
      autograd::clear_grad(*parameters[i]);
    }
  }
  RecordProperty("worst", fmt::format("{:.2e}", worst));
}

INSTANTIATE_TEST_SUITE_P(Bases, Adapter,
                         testing::Values(Base{"dense", "", "none"}, Base{"nf4", "/nf4", "stored"}),
                         [](const auto& test) { return std::string(test.param.name); });

class Variant : public testing::TestWithParam<std::string> {};

// A changed config.json and, where the variant has them, bias vectors beside the weights.
TEST_P(Variant, LogitsEqualTransformers) {
  const Json variants = read_json(kTiny + "/variants.json");
  const Json& variant = variants["variants"][GetParam()];
  io::ModelFiles files = io::open_model(kTiny);
  for (const auto& [key, value] : variant["config"].items()) files.config[key] = value;
  if (variant["biases"].get<bool>())
    files.weights = std::make_shared<WithBiases>(files.weights, GetParam() == "qwen2");
  Loaded run(files);
  const auto ids = variants["ids"].get<std::vector<int32_t>>();
  const auto all = logits_of(run, ids, {static_cast<int32_t>(ids.size())});
  const std::vector<float> last(all.end() - 4 * 96, all.end());
  const auto golden = io::SafetensorsFile::open(kTiny + "/variants.safetensors");
  const double worst = max_difference(last, to_vector(golden.tensor(GetParam())));
  RecordProperty("worst", fmt::format("{:.2e}", worst));
  EXPECT_LT(worst, 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Configs, Variant,
                         testing::Values("plain", "tied", "linear", "dynamic", "llama3", "yarn",
                                         "yarn_attention_factor", "theta", "biases", "qwen2", "mistral"),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace nibble::models::test
