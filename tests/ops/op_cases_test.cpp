#include "tests/ops/op_cases.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backend/kernels/elementwise.h"
#include "base/parallel.h"
#include "ops/dropout_stream.h"
#include "tests/ops/guarded_allocator.h"

namespace nibble::ops::test {

std::vector<double> kept(int64_t n, float p, uint64_t seed, uint64_t step, uint64_t stream) {
  backend::Stream s(host_allocator());
  Tensor ones = Tensor::empty(host_allocator(), {n}, kF32, "ones"),
         out = Tensor::empty(host_allocator(), {n}, kF32, "mask");
  std::fill_n(ones.data<float>(), n, 1.0f);
  backend::dropout(s, ones, p, seed, dropout_stream(stream, step), out, false);
  std::vector<double> mask;
  for (int64_t i = 0; i < n; ++i) mask.push_back(out.data<float>()[i] != 0);
  return mask;
}

namespace {

// One run of a case: its value, and the gradient of each input that wants one.
struct Outcome {
  std::vector<float> value;
  std::vector<std::vector<float>> gradients;
  bool operator==(const Outcome&) const = default;
};

struct How {
  DType compute = kF32;
  std::vector<bool> wanted = {};  // which inputs want gradients; empty: all that can
  bool lazy = false;
  autograd::Checkpointing checkpointing = autograd::Checkpointing::kNone;
  float present = 0;  // a gradient that is already there, everywhere
};

std::vector<float> floats(const Tensor& t) {
  std::vector<float> v(static_cast<size_t>(t.numel()));
  if (!v.empty()) quant::decode_rows(quant::dense_weight(t.reshape({1, t.numel()})), 0, 1, v.data());
  return v;
}

Tensor filled(Allocator& memory, const Shape& shape, DType dtype, const std::vector<double>& values) {
  Tensor t = Tensor::empty(memory, shape, dtype, "input");
  if (t.raw() == nullptr) return t;
  for (int64_t i = 0; i < t.numel(); ++i) {
    const auto f = static_cast<float>(values[static_cast<size_t>(i)]);
    if (dtype == kF32) {
      t.data<float>()[i] = f;
    } else {
      t.data<BFloat16>()[i] = to_bf16(f);
    }
  }
  return t;
}

DType dtype_of_input(const Input& input, DType compute) { return input.parameter ? kF32 : compute; }

// The inputs as the operation sees them (rounded to their type), in f64 for the formula.
Values values_of(const OpCase& c, DType compute) {
  Values values;
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    values.push_back(normal_values(c.inputs[i].shape.numel(), c.inputs[i].scale, 100 + i));
    for (double& v : values.back())
      v = dtype_of_input(c.inputs[i], compute) == kF32 ? static_cast<float>(v)
                                                       : to_float(to_bf16(static_cast<float>(v)));
  }
  return values;
}

std::vector<double> weights_of(const OpCase& c, size_t n) {
  return c.root ? std::vector<double>(n, 1.0) : normal_values(static_cast<int64_t>(n), 1, 55);
}

Outcome run(const OpCase& c, const How& how, Allocator& memory) {
  backend::register_cpu_kernels();
  backend::Stream stream(memory);
  Context cx(stream, memory, how.compute);
  cx.training = true;
  cx.seed = 3;
  cx.step = 8;
  cx.checkpointing = how.checkpointing;
  cx.lazy = how.lazy;
  autograd::Tape tape;
  cx.set_tape(&tape);

  const Values values = values_of(c, how.compute);
  std::vector<Variable> inputs;
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    const Input& input = c.inputs[i];
    const Tensor t = filled(memory, input.shape, dtype_of_input(input, how.compute), values[i]);
    std::shared_ptr<autograd::GradSlot> slot;
    if (input.gradient && (how.wanted.empty() || how.wanted[i])) {
      slot = cx.new_slot(input.shape, t.dtype());
      slot->parameter = input.parameter;
      if (how.present != 0) {
        slot->grad = filled(memory, input.shape, t.dtype(),
                            std::vector<double>(static_cast<size_t>(t.numel()), how.present));
        slot->filled = true;
      }
    }
    inputs.emplace_back(t, slot);
  }
  const Variable y = c.op(cx, inputs);
  Outcome out;
  if (y.requires_grad()) {
    const Tensor dy =
        filled(memory, y.shape(), y.dtype(), weights_of(c, static_cast<size_t>(y.shape().numel())));
    tape.backward(cx, y, dy);
  }
  if (memory.device() == Device::kMeta) return out;
  out.value = floats(y.value());
  for (const Variable& v : inputs)
    out.gradients.push_back(v.requires_grad() && v.slot()->filled ? floats(v.slot()->grad)
                                                                  : std::vector<float>());
  return out;
}

double relative(const std::vector<float>& got, const std::vector<double>& expected) {
  EXPECT_EQ(got.size(), expected.size());
  double error = 0, norm = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    error += std::pow(got[i] - expected[i], 2);
    norm += std::pow(expected[i], 2);
  }
  return std::sqrt(error) / std::max(std::sqrt(norm), 1e-30);
}

// Σ_j dy_j y_j of the formula, differentiated in f64 by central differences.
std::vector<double> difference_quotients(const OpCase& c, Values values, size_t input,
                                         const std::vector<double>& dy) {
  const auto objective = [&] {
    const std::vector<double> y = c.formula(values);
    double s = 0;
    for (size_t j = 0; j < y.size(); ++j) s += dy[j] * y[j];
    return s;
  };
  std::vector<double> d;
  for (double& x : values[input]) {
    const double keep = x, h = 1e-5 * std::max(1.0, std::abs(keep));
    x = keep + h;
    const double up = objective();
    x = keep - h;
    const double down = objective();
    x = keep;
    d.push_back((up - down) / (2 * h));
  }
  return d;
}

class Ops : public testing::TestWithParam<OpCase> {
 protected:
  std::vector<DType> computes() const {
    return GetParam().name.find("composed") == std::string::npos ? std::vector<DType>{kF32, kBF16}
                                                                 : std::vector<DType>{kF32};
  }
};

TEST_P(Ops, ValueAndGradientsAreTheFormulas) {
  const OpCase& c = GetParam();
  for (const DType compute : computes()) {
    GuardedAllocator memory;
    const Outcome out = run(c, {.compute = compute}, memory);
    EXPECT_EQ(memory.violations(), "");
    const double allowed = compute == kF32 ? c.f32 : c.bf16;
    const Values values = values_of(c, compute);
    const auto expected = c.formula(values);
    EXPECT_LE(relative(out.value, expected), allowed) << dtype_name(compute);
    auto dy = weights_of(c, expected.size());
    if (compute == kBF16)
      for (double& d : dy) d = to_float(to_bf16(static_cast<float>(d)));
    for (size_t i = 0; i < c.inputs.size(); ++i) {
      if (!c.inputs[i].gradient) continue;
      EXPECT_LE(relative(out.gradients[i], difference_quotients(c, values, i, dy)), 4 * allowed)
          << "gradient of input " << i << ", " << dtype_name(compute);
    }
  }
}

TEST_P(Ops, EachGradientAloneIsTheSame) {
  const OpCase& c = GetParam();
  GuardedAllocator memory;
  const Outcome all = run(c, {}, memory);
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    How how;
    how.wanted.assign(c.inputs.size(), false);
    how.wanted[i] = c.inputs[i].gradient;
    const Outcome alone = run(c, how, memory);
    EXPECT_EQ(alone.value, all.value);
    EXPECT_EQ(alone.gradients[i], all.gradients[i]) << i;
    for (size_t k = 0; k < c.inputs.size(); ++k) EXPECT_TRUE(k == i || alone.gradients[k].empty());
  }
  EXPECT_EQ(memory.violations(), "");
}

TEST_P(Ops, GradientsAreAddedToWhatIsThere) {
  const OpCase& c = GetParam();
  GuardedAllocator memory;
  const Outcome alone = run(c, {}, memory), added = run(c, {.present = 2}, memory);
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    std::vector<double> expected(alone.gradients[i].begin(), alone.gradients[i].end());
    for (double& g : expected) g += 2;
    if (!c.inputs[i].gradient) continue;
    EXPECT_LE(relative(added.gradients[i], expected), 1e-6) << i;
  }
  EXPECT_EQ(memory.violations(), "");
}

TEST_P(Ops, LazyAndRemadeValuesAreTheSame) {
  const OpCase& c = GetParam();
  for (const DType compute : computes()) {
    GuardedAllocator memory;
    const Outcome plain = run(c, {.compute = compute}, memory);
    EXPECT_TRUE(run(c, {.compute = compute, .lazy = true}, memory) == plain);
    EXPECT_TRUE(run(c, {.compute = compute, .checkpointing = autograd::Checkpointing::kSelective}, memory) ==
                plain);
  }
}

TEST_P(Ops, ThreadsChangeNothing) {
  GuardedAllocator memory;
  set_threads(1);
  const Outcome one = run(GetParam(), {}, memory);
  set_threads(2);
  const Outcome two = run(GetParam(), {}, memory);
  set_threads(0);
  EXPECT_TRUE(one == two);
}

// Without memory there is the same sequence of allocations; kernels' own scratch apart.
TEST_P(Ops, ShapesAloneAllocateTheSame) {
  if (GetParam().name.find("composed") != std::string::npos) return;  // an oracle is never planned
  const auto sizes = [&](Allocator& memory) {
    memory.ledger().start_recording();
    run(GetParam(), {}, memory);
    return memory.ledger().names_peak();
  };
  const auto host = make_host_allocator(), meta = make_meta_allocator();
  auto real = sizes(*host), shapes = sizes(*meta);
  std::erase_if(real, [](const auto& e) { return e.first.first == "scratch"; });
  std::erase_if(shapes, [](const auto& e) { return e.first.first == "scratch"; });
  EXPECT_EQ(real, shapes);
}

INSTANTIATE_TEST_SUITE_P(Cases, Ops, testing::ValuesIn(op_cases()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace nibble::ops::test
