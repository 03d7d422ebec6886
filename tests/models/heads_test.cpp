// Other shares of query to key/value heads, head widths that no vector divides, sequences of odd length:
// logits and every gradient against Transformers (tests/goldens/make_heads.py).
#include "tests/models/tiny.h"

namespace nibble::models::test {
namespace {

const std::string kHeads = std::string(NIBBLE_SOURCE_DIR) + "/tests/goldens/heads";

class Heads : public testing::TestWithParam<std::tuple<const char*, autograd::Checkpointing>> {};

TEST_P(Heads, LogitsAndGradientsEqualTransformers) {
  const auto& [name, checkpointing] = GetParam();
  const Json cases = read_json(kHeads + "/cases.json");
  const auto golden = io::SafetensorsFile::open(kHeads + "/" + name + "/golden.safetensors");
  Json labels = cases["sequences"];
  for (Json& row : labels) row[0] = -100;
  const Batch batch = batch_of(cases["sequences"], labels);

  Loaded run(io::open_model(kHeads + "/" + name));
  EXPECT_LT(max_difference(logits_of(run, batch.ids, batch.lengths), to_vector(golden.tensor("logits"))),
            1e-4);

  run.model->make_trainable(*run.allocator);
  run.cx.training = true;
  run.cx.checkpointing = checkpointing;
  EXPECT_NEAR(loss_and_gradients(run, batch), cases["losses"][name].get<double>(), 2e-5);
  size_t seen = 0;
  run.model->visit_parameters([&](autograd::Parameter& p) {
    ++seen;
    const std::vector<float> g = to_vector(p.grad());
    std::vector<float> sample;
    for (size_t i = 0; i < g.size(); i += std::max<size_t>(1, g.size() / 96)) sample.push_back(g[i]);
    double norm = 0;
    for (const float v : g) norm += double{v} * double{v};
    const double expected = to_vector(golden.tensor(p.name + ".norm"))[0];
    EXPECT_NEAR(std::sqrt(norm), expected, 1e-4 * expected) << p.name;
    EXPECT_LT(relative_norm(sample, to_vector(golden.tensor(p.name + ".sample"))), 1e-3) << p.name;
  });
  EXPECT_EQ(2 * seen + 1, golden.entries.size());
}
INSTANTIATE_TEST_SUITE_P(Shapes, Heads,
                         testing::Combine(testing::Values("9to3", "4to1", "5to5", "8to2"),
                                          testing::Values(autograd::Checkpointing::kNone,
                                                          autograd::Checkpointing::kBlock)));

}  // namespace
}  // namespace nibble::models::test
