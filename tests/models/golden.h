// Comparisons of a model with what the scripts of tests/goldens keep of Transformers and PEFT: every gradient
// of an adapter ("grad."), of each weight the norm of its gradient and about 64 samples ("full.").
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "tests/models/tiny.h"

namespace nibble::models::test {

inline size_t golden_entries(const io::SafetensorsFile& golden, std::string_view prefix) {
  size_t count = 0;
  for (const auto& entry : golden.entries) count += entry.name.starts_with(prefix);
  return count;
}

// Relative norm below 1e-3 each, none missing. Returns the worst.
inline double expect_golden_gradients(const io::SafetensorsFile& golden,
                                      const std::vector<autograd::Parameter*>& trained) {
  EXPECT_EQ(trained.size(), golden_entries(golden, "grad."));
  double worst = 0;
  for (autograd::Parameter* p : trained) {
    const double error =
        relative_norm(to_vector(p->grad()), to_vector(golden.tensor("grad." + (kPrefix + p->name))));
    EXPECT_LT(error, 1e-3) << p->name;
    worst = std::max(worst, error);
  }
  return worst;
}

// After a step with every weight trainable; norm and samples within 1e-3. `noise` names gradients that are
// zero but for rounding (the bias of a key moves all scores of a query alike): they stay below 1e-5 of their
// weight's. Returns the worst relative difference.
inline double expect_golden_full_gradients(const io::SafetensorsFile& golden, const Model& model,
                                           const std::function<bool(const std::string&)>& noise) {
  const auto norm_of = [&](const std::string& name) {
    return to_vector(golden.tensor("full." + name + ".norm"))[0];
  };
  size_t seen = 0;
  double worst = 0;
  model.visit_parameters([&](autograd::Parameter& p) {
    ++seen;
    const std::vector<float> g = to_vector(p.grad());
    double squares = 0;
    for (const float v : g) squares += double{v} * double{v};
    if (noise(p.name)) {
      const std::string weight = p.name.substr(0, p.name.rfind('.')) + ".weight";
      EXPECT_LT(std::sqrt(squares), 1e-5 * norm_of(weight)) << p.name;
      return;
    }
    std::vector<float> sample;
    for (size_t i = 0; i < g.size(); i += std::max<size_t>(1, g.size() / 64)) sample.push_back(g[i]);
    EXPECT_NEAR(std::sqrt(squares), norm_of(p.name), 1e-3 * norm_of(p.name)) << p.name;
    const double error = relative_norm(sample, to_vector(golden.tensor("full." + p.name + ".sample")));
    EXPECT_LT(error, 1e-3) << p.name;
    worst = std::max(worst, error);
  });
  EXPECT_EQ(2 * seen, golden_entries(golden, "full."));
  return worst;
}

// Makes the run ready to train as the tests of exact pairs do: over NF4 the adapter with dropout, or every
// weight.
inline std::vector<autograd::Parameter*> prepare_step(Loaded& run, const io::AdapterFile* adapter,
                                                      autograd::Checkpointing checkpointing) {
  std::vector<autograd::Parameter*> parameters;
  if (adapter != nullptr) {
    io::AdapterFile with_dropout = *adapter;
    with_dropout.config.lora_dropout = 0.2;
    nn::attach_adapter(run.visit(), with_dropout, 0, *run.allocator);
    run.use(0);
    parameters = adapter_parameters(run, 0);
  } else {
    run.model->make_trainable(*run.allocator);
    run.model->visit_parameters([&](autograd::Parameter& p) { parameters.push_back(&p); });
  }
  run.cx.training = true;
  run.cx.seed = 5;
  run.cx.step = 3;
  run.cx.checkpointing = checkpointing;
  return parameters;
}

// A config.json with one key changed, and the error it should give.
struct BadKey {
  const char* model;
  const char* key;
  Json value;
  const char* message;
};

// Loads the model under `goldens` that `bad` names with the changed key.
inline void expect_bad_key(const std::string& goldens, const BadKey& bad) {
  io::ModelFiles files = io::open_model(goldens + bad.model);
  files.config[bad.key] = bad.value;
  try {
    Loaded run(files);
    ADD_FAILURE() << bad.key << " was taken";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), testing::HasSubstr(bad.message));
  }
}

}  // namespace nibble::models::test
