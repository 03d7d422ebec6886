#include "train/optimizer.h"

#include <gmock/gmock.h>
#include <sys/resource.h>

#include <csignal>

#include <cmath>

#include "backend/kernel_slot.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "tests/train/tiny.h"

namespace nibble::train {
namespace {

using autograd::Parameter;

// Parameters of several sizes: below the 8-bit limit, not a multiple of a block, larger than a chunk.
class Bowl {
 public:
  explicit Bowl(OptimizerOptions options) : allocator(make_host_allocator()), stream(*allocator) {
    backend::register_cpu_kernels();
    for (const int64_t n : {int64_t{100}, int64_t{4095}, int64_t{4097}, Optimizer::kChunk * 2 + 777}) {
      Tensor value = Tensor::empty(*allocator, {n}, kF32, "p");
      const Rng rng(5, static_cast<uint64_t>(n));
      for (int64_t i = 0; i < n; ++i)
        value.data<float>()[i] = static_cast<float>(rng.normal(static_cast<uint64_t>(i)));
      parameters.push_back(autograd::make_parameter(fmt::format("p{}", n), value));
    }
    for (Parameter& p : parameters) {
      autograd::allocate_grad(p, *allocator);
      pointers.push_back(&p);
    }
    optimizer = std::make_unique<Optimizer>(pointers, std::move(options), *allocator);
  }
  // Gradient of ½ Σ x²; so every optimizer should shrink x.
  void run(int64_t first, int64_t last, double rate) {
    for (int64_t step = first; step <= last; ++step) {
      for (Parameter& p : parameters)
        for (int64_t i = 0; i < p.grad().numel(); ++i)
          p.grad().data<float>()[i] = p.variable.value().data<float>()[i];
      optimizer->step(stream, step, rate, 1.0);
    }
  }
  double norm() const {
    double sum = 0;
    for (const Parameter& p : parameters)
      for (int64_t i = 0; i < p.variable.value().numel(); ++i)
        sum += std::pow(p.variable.value().data<float>()[i], 2);
    return std::sqrt(sum);
  }
  std::string bytes() {
    std::string all;
    for (const Parameter& p : parameters)
      all.append(reinterpret_cast<const char*>(p.variable.value().raw()),
                 static_cast<size_t>(p.variable.value().bytes()));
    optimizer->write_state(
        [&](std::span<const std::byte> b) { all.append(reinterpret_cast<const char*>(b.data()), b.size()); });
    return all;
  }

  std::shared_ptr<Allocator> allocator;
  backend::Stream stream;
  std::vector<Parameter> parameters;
  std::vector<Parameter*> pointers;
  std::unique_ptr<Optimizer> optimizer;
};

OptimizerOptions named(const std::string& name, const std::string& directory, int64_t memory = 16 << 20) {
  OptimizerOptions options = optimizer_named(name);
  options.page_file = directory + "/pages";
  options.paged_memory = memory;
  return options;
}

class EveryOptimizer : public testing::TestWithParam<const char*> {};

TEST_P(EveryOptimizer, ShrinksABowl) {
  const TempDir dir;
  Bowl bowl(named(GetParam(), dir.path));
  const double before = bowl.norm();
  bowl.run(1, 20, 0.03);
  EXPECT_LT(bowl.norm(), 0.9 * before) << GetParam();
}

TEST_P(EveryOptimizer, IsTheSameForAnyNumberOfThreads) {
  const TempDir dir;
  set_threads(1);
  Bowl one(named(GetParam(), dir.path));
  one.run(1, 3, 0.01);
  set_threads(3);
  Bowl three(named(GetParam(), dir.path));
  three.run(1, 3, 0.01);
  set_threads(0);
  EXPECT_TRUE(one.bytes() == three.bytes());
}

TEST_P(EveryOptimizer, GoesOnFromItsState) {
  const TempDir dir;
  Bowl whole(named(GetParam(), dir.path)), first(named(GetParam(), dir.path)),
      second(named(GetParam(), dir.path));
  whole.run(1, 6, 0.01);
  first.run(1, 3, 0.01);
  std::string state;
  first.optimizer->write_state(
      [&](std::span<const std::byte> b) { state.append(reinterpret_cast<const char*>(b.data()), b.size()); });
  for (size_t p = 0; p < first.parameters.size(); ++p)
    std::memcpy(second.parameters[p].variable.value().raw(), first.parameters[p].variable.value().raw(),
                static_cast<size_t>(first.parameters[p].variable.value().bytes()));
  size_t at = 0;
  second.optimizer->read_state([&](const Optimizer::StateTensor& t) {
    const auto n = static_cast<size_t>(t.shape.numel() * dtype_bytes(t.dtype));
    at += n;
    return std::span(reinterpret_cast<const std::byte*>(state.data()) + at - n, n);
  });
  second.run(4, 6, 0.01);
  EXPECT_TRUE(second.bytes() == whole.bytes());
}

INSTANTIATE_TEST_SUITE_P(All, EveryOptimizer,
                         testing::Values("adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "sgd",
                                         "lion"));

class PagedPair : public testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(PagedPair, GivesTheSameBytesAsUnpaged) {
  const TempDir dir;
  Bowl plain(named(GetParam().first, dir.path)), paged(named(GetParam().second, dir.path, 200 << 10));
  EXPECT_EQ(plain.optimizer->file_bytes(), 0);
  EXPECT_GT(paged.optimizer->file_bytes(), 0);
  EXPECT_LT(paged.optimizer->resident_bytes(), paged.optimizer->state_bytes() * 2);
  EXPECT_FALSE(std::filesystem::exists(dir.path + "/pages")) << "the page file has no name";
  plain.run(1, 4, 0.01);
  paged.run(1, 4, 0.01);
  EXPECT_TRUE(plain.bytes() == paged.bytes());
}
INSTANTIATE_TEST_SUITE_P(All, PagedPair,
                         testing::Values(std::pair{"adamw", "paged_adamw"},
                                         std::pair{"adamw_8bit", "paged_adamw_8bit"}));

TEST(Optimizer, HoldsNoMoreThanThePagedMemory) {
  const TempDir dir;
  const int64_t limit = 3 << 20;
  Bowl bowl(named("paged_adamw", dir.path, limit));
  EXPECT_EQ(bowl.optimizer->file_bytes(), 0) << "state that fits is not paged";
  const auto allocator = make_host_allocator();
  std::vector<Parameter> many;
  for (int i = 0; i < 40; ++i) {
    many.push_back(
        autograd::make_parameter(fmt::format("p{}", i), Tensor::empty(*allocator, {64, 600}, kF32, "p")));
  }
  std::vector<Parameter*> pointers;
  for (Parameter& p : many) pointers.push_back(&p);
  const int64_t before = allocator->ledger().current_bytes();
  const Optimizer optimizer(pointers, named("paged_adamw", dir.path, limit), *allocator);
  EXPECT_GT(optimizer.file_bytes(), 12 << 20);
  EXPECT_LE(optimizer.resident_bytes(), limit);
  EXPECT_EQ(allocator->ledger().current_bytes() - before, optimizer.resident_bytes())
      << "what the plan says is what is held";
}

TEST(Optimizer, SmallParametersKeepWholeStateUnder8Bits) {
  const TempDir dir;
  Bowl bowl(named("adamw_8bit", dir.path));
  for (const auto& tensor : bowl.optimizer->state_layout()) {
    const bool small = tensor.name.starts_with("p100/") || tensor.name.starts_with("p4095/");
    if (tensor.name.ends_with("/exp_avg")) {
      EXPECT_EQ(tensor.dtype, small ? kF32 : kU8) << tensor.name;
    }
  }
}

TEST(Optimizer, StateOfAnotherRunIsRefused) {
  const TempDir dir;
  Bowl bowl(named("adamw", dir.path));
  EXPECT_THAT(message_of([&] {
                bowl.optimizer->read_state(
                    [](const Optimizer::StateTensor&) { return std::span<const std::byte>(); });
              }),
              testing::HasSubstr("p100/exp_avg has 0 bytes where this run needs 400"));
}

TEST(Optimizer, AFullDiskIsToldBeforeTheFirstStep) {
  const TempDir dir;
  struct rlimit old {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
  std::signal(SIGXFSZ, SIG_IGN);
  struct rlimit small {
    1 << 16, old.rlim_max
  };
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string message = message_of([&] { Bowl bowl(named("paged_adamw", dir.path, 200 << 10)); });
  setrlimit(RLIMIT_FSIZE, &old);
  EXPECT_THAT(message, testing::HasSubstr("for the state of the paged optimizer"));
  EXPECT_TRUE(std::filesystem::is_empty(dir.path));
}

TEST(Optimizer, GlobalNormIsThatOfAllGradientsTogether) {
  const TempDir dir;
  Bowl bowl(named("adamw", dir.path));
  for (Parameter& p : bowl.parameters)
    for (int64_t i = 0; i < p.grad().numel(); ++i) p.grad().data<float>()[i] = 0.5f;
  Tensor scratch = Tensor::empty(*bowl.allocator, {1}, kF32, "s");
  int64_t n = 0;
  for (Parameter& p : bowl.parameters) n += p.grad().numel();
  EXPECT_NEAR(global_norm(bowl.stream, bowl.pointers, scratch), 0.5 * std::sqrt(static_cast<double>(n)),
              1e-3);
  bowl.parameters[2].grad().data<float>()[7] = std::nanf("");
  EXPECT_TRUE(std::isnan(global_norm(bowl.stream, bowl.pointers, scratch)));
}

}  // namespace
}  // namespace nibble::train
