// Optimizers, clipping and schedules against torch, bitsandbytes and Transformers
// (tests/goldens/make_optimizer.py).
#include <gmock/gmock.h>

#include <cmath>
#include <cstring>

#include "backend/kernel_slot.h"
#include "io/safetensors.h"
#include "quant/weight.h"
#include "tests/train/tiny.h"
#include "train/optimizer.h"
#include "train/schedule.h"

namespace nibble::train {
namespace {

constexpr int64_t kN = 4113, kSteps = 12;
const std::string kGolden = NIBBLE_SOURCE_DIR "/tests/goldens/optimizer";

// value() and gradient() of the script: every number is a float.
float value(int64_t i) { return static_cast<float>(i * 31 % 1999 - 999) / 1024; }
float gradient(int64_t i, int64_t step) {
  if ((i + step) % 7 == 0) return 0;
  return std::ldexp(static_cast<float>((i * 7919 + step * 104729) % 2001 - 1000),
                    static_cast<int>(-10 - i % 11));
}

// One parameter and its optimizer.
struct Subject {
  Subject(const char* name, double momentum = 0.9) : allocator(make_host_allocator()), stream(*allocator) {
    backend::register_cpu_kernels();
    Tensor p = Tensor::empty(*allocator, {kN}, kF32, "p");
    for (int64_t i = 0; i < kN; ++i) p.data<float>()[i] = value(i);
    parameter = autograd::make_parameter("p", p);
    autograd::allocate_grad(parameter, *allocator);
    OptimizerOptions options = optimizer_named(name);
    options.beta1 = 0.9;
    options.beta2 = 0.95;
    options.momentum = momentum;
    options.weight_decay = 0.1;
    optimizer = std::make_unique<Optimizer>(std::vector{&parameter}, options, *allocator);
  }
  void step(int64_t n) {
    for (int64_t i = 0; i < kN; ++i) parameter.grad().data<float>()[i] = gradient(i, n);
    optimizer->step(stream, n, 0.01, 1.0);
  }
  float* values() { return parameter.variable.value().data<float>(); }

  std::shared_ptr<Allocator> allocator;
  backend::Stream stream;
  autograd::Parameter parameter;
  std::unique_ptr<Optimizer> optimizer;
};

struct Row {
  const char *golden, *name;
  double momentum;
};
class Golden32 : public testing::TestWithParam<Row> {};

TEST_P(Golden32, TwelveStepsAreThoseOfTheReference) {
  const auto file = io::SafetensorsFile::open(kGolden + "/optimizer.safetensors");
  const Tensor want = file.tensor(GetParam().golden);
  Subject subject(GetParam().name, GetParam().momentum);
  for (int64_t n = 1; n <= kSteps; ++n) subject.step(n);
  // Each step rounds the parameter (below 2) once, and its update of at most ~1 a few times.
  const double tolerance = kSteps * 8 * 0x1p-24;
  for (int64_t i = 0; i < kN; ++i)
    ASSERT_NEAR(subject.values()[i], want.data<float>()[i], tolerance) << GetParam().golden << " " << i;
}
INSTANTIATE_TEST_SUITE_P(All, Golden32,
                         testing::Values(Row{"adamw", "adamw", 0}, Row{"sgd", "sgd", 0.9},
                                         Row{"sgd_plain", "sgd", 0.0}, Row{"lion", "lion", 0}));

// bitsandbytes' state after step `n` as the optimizer reads it; step 0 is the fresh state.
void set_state(Subject& subject, const io::SafetensorsFile& file, int64_t n) {
  subject.optimizer->read_state([&](const Optimizer::StateTensor& t) {
    const std::string name = t.name == "p/exp_avg"             ? "m"
                             : t.name == "p/exp_avg.absmax"    ? "m_absmax"
                             : t.name == "p/exp_avg_sq"        ? "v"
                             : t.name == "p/exp_avg_sq.absmax" ? "v_absmax"
                                                               : "?";
    return file.find(fmt::format("adamw_8bit.{}.{}", n, name))->data;
  });
}
std::map<std::string, std::string> state_of(Subject& subject) {
  std::string all;
  subject.optimizer->write_state(
      [&](std::span<const std::byte> b) { all.append(reinterpret_cast<const char*>(b.data()), b.size()); });
  std::map<std::string, std::string> state;
  size_t at = 0;
  for (const auto& t : subject.optimizer->state_layout()) {
    const auto n = static_cast<size_t>(t.shape.numel() * dtype_bytes(t.dtype));
    state[t.name] = all.substr(at, n);
    at += n;
  }
  return state;
}

// Each step from bitsandbytes' own parameters and state: parameters, absolute maxima to the last bits (1 -
// beta is made from the f32 beta, as in its CUDA code, its CPU code takes the exact one: 4 ulp), and codes.
// Its CPU code finds codes by a table that knows no small values (it makes code 131 of a zero where the map
// has 127) and is one off between two codes now and then, so small values are left to
// tests/backend/optimizer_test.cpp, which looks at the definition.
TEST(Golden8bit, EveryStepFromTheStateOfBitsandbytes) {
  const auto file = io::SafetensorsFile::open(kGolden + "/optimizer.safetensors");
  Subject subject("adamw_8bit");
  int64_t compared = 0;
  for (int64_t n = 1; n <= 6; ++n) {
    if (n > 1) {
      set_state(subject, file, n - 1);
      const auto before = file.find(fmt::format("adamw_8bit.{}.p", n - 1))->data;
      std::memcpy(subject.values(), before.data(), before.size());
    }
    subject.step(n);
    const Tensor after = file.tensor(fmt::format("adamw_8bit.{}.p", n));
    for (int64_t i = 0; i < kN; ++i)
      ASSERT_NEAR(subject.values()[i], after.data<float>()[i], 1e-6) << i << " step " << n;
    const auto state = state_of(subject);
    for (const char* moment : {"m", "v"}) {
      const std::string key = std::string("p/exp_avg") + (*moment == 'v' ? "_sq" : "");
      const auto map = *moment == 'v' ? quant::dynamic_map_unsigned() : quant::dynamic_map_signed();
      const auto codes = file.find(fmt::format("adamw_8bit.{}.{}", n, moment))->data;
      const auto absmax = file.find(fmt::format("adamw_8bit.{}.{}_absmax", n, moment))->data;
      ASSERT_EQ(codes.size(), state.at(key).size());
      ASSERT_EQ(absmax.size(), state.at(key + ".absmax").size());
      for (size_t b = 0; b < absmax.size() / 4; ++b) {
        float got = 0, want = 0;
        std::memcpy(&got, state.at(key + ".absmax").data() + 4 * b, 4);
        std::memcpy(&want, absmax.data() + 4 * b, 4);
        ASSERT_NEAR(got, want, 8 * 0x1p-24 * want) << moment << " block " << b << " step " << n;
      }
      for (size_t i = 0; i < codes.size(); ++i) {
        const int got = static_cast<unsigned char>(state.at(key)[i]), want = std::to_integer<int>(codes[i]);
        if (std::abs(map[static_cast<size_t>(got)]) < 1e-3f) continue;
        ASSERT_LE(std::abs(got - want), 1) << moment << " of " << i << " step " << n;
        ++compared;
      }
    }
  }
  EXPECT_GT(compared, 6 * kN);
}

TEST(Clipping, IsThatOfTorch) {
  const Json cases = parse_json(read_file(kGolden + "/cases.json"), "cases.json");
  const auto allocator = make_host_allocator();
  backend::register_cpu_kernels();
  backend::Stream stream(*allocator);
  std::vector<autograd::Parameter> parameters;
  std::vector<autograd::Parameter*> pointers;
  int64_t k = 0;
  for (const int64_t n : {int64_t{5}, kN, int64_t{64}}) {
    parameters.push_back(autograd::make_parameter("p", Tensor::empty(*allocator, {n}, kF32, "p")));
    autograd::allocate_grad(parameters.back(), *allocator);
    ++k;
    for (int64_t i = 0; i < n; ++i) parameters.back().grad().data<float>()[i] = gradient(i, k);
  }
  for (auto& p : parameters) pointers.push_back(&p);
  Tensor scratch = Tensor::empty(*allocator, {1}, kF32, "norm");
  const double norm = global_norm(stream, pointers, scratch);
  ASSERT_EQ(cases["clip"].size(), 3u);
  for (const Json& c : cases["clip"]) {
    EXPECT_NEAR(norm, c["norm"].get<double>(), 1e-6 * norm);
    const double factor = clip_factor(norm, c["max_norm"].get<double>());
    for (size_t p = 0; p < parameters.size(); ++p)
      EXPECT_NEAR(factor * gradient(1, static_cast<int64_t>(p) + 1), c["first"][p].get<double>(),
                  1e-6 * std::abs(c["first"][p].get<double>()));
  }
  EXPECT_EQ(clip_factor(5, 0), 1) << "0 is no limit";
}

// Transformers counts steps from 0: its rate at step n - 1 is ours at step n, but for the warm-up, which it
// begins at 0.
TEST(Schedules, AreThoseOfTransformers) {
  const Json cases = parse_json(read_file(kGolden + "/cases.json"), "cases.json");
  ASSERT_EQ(cases["schedules"].size(), 7u);
  for (const Json& c : cases["schedules"]) {
    const auto name = c["name"].get<std::string>();
    const auto total = c["total"].get<int64_t>(), warmup = c["warmup"].get<int64_t>();
    const auto rates = c["rates"].get<std::vector<double>>();
    const Schedule schedule(name == "constant_with_warmup" ? "constant" : name, 2.0, total, warmup, 0);
    for (int64_t n = 1; n <= total; ++n) {
      const int64_t theirs = n < warmup ? n : n == warmup ? -1 : n - 1;
      EXPECT_NEAR(schedule.rate(n), theirs < 0 ? 2.0 : rates[static_cast<size_t>(theirs)], 1e-12)
          << name << " step " << n << " of " << total;
    }
  }
}

}  // namespace
}  // namespace nibble::train
