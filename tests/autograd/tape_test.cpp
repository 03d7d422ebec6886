#include "autograd/tape.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "autograd/recompute.h"
#include "backend/kernels/elementwise.h"

namespace nibble::autograd {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

struct Tapes : testing::Test {
  Tapes() : memory(make_host_allocator()), stream(*memory), cx(stream, *memory, kF32) {
    backend::register_cpu_kernels();
  }

  Tensor tensor(const std::vector<float>& v) {
    Tensor t = Tensor::empty(*memory, {static_cast<int64_t>(v.size())}, kF32, "test");
    std::copy(v.begin(), v.end(), t.data<float>());
    return t;
  }
  Variable leaf(const std::vector<float>& v) {
    const Tensor t = tensor(v);
    return {t, cx.new_slot(t.shape(), kF32)};
  }
  static std::vector<float> values(const Tensor& t) { return {t.data<float>(), t.data<float>() + t.numel()}; }
  static std::vector<float> grad(const Variable& v) { return values(v.slot()->grad); }

  // factor · x; each call is counted. `lazy` ones are made when asked for in a recomputed pass.
  Variable times(Context& c, const Variable& x, float factor) {
    const auto make = [this, &c, x, factor] {
      ++calls;
      Tensor y = c.empty_like(x.value(), "times");
      backend::scale(c.stream(), x.value(), factor, y, false);
      return y;
    };
    const bool recorded = c.differentiates({&x});
    if (!recorded) return c.result(make(), false);
    Variable y =
        c.lazy ? Variable::lazy(x.shape(), kF32, make, c.new_slot(x.shape(), kF32)) : c.result(make(), true);
    c.tape()->record("times", y, [slot = x.slot(), factor](Backward& b) {
      auto dx = b.target(slot, "dx");
      backend::scale(b.cx().stream(), b.dy(), factor, dx.grad, dx.accumulate);
      b.cost(1, 2);
    });
    return y;
  }
  // a · b element by element (swiglu's cousin): saves both.
  Variable product(Context& c, const Variable& a, const Variable& b) {
    Tensor y = c.empty_like(a.value(), "product");
    for (int64_t i = 0; i < y.numel(); ++i)
      y.data<float>()[i] = a.value().data<float>()[i] * b.value().data<float>()[i];
    Variable result = c.result(y, c.differentiates({&a, &b}));
    if (!result.requires_grad()) return result;
    c.tape()->record("product", result,
                     [this, sa = a.save(), sb = b.save(), slot_a = a.slot(), slot_b = b.slot()](Backward& g) {
                       for (const auto& [slot, other] : {std::pair{slot_a, sb}, std::pair{slot_b, sa}}) {
                         if (!slot) continue;
                         Tensor d = g.cx().empty_like(g.dy(), "d");
                         for (int64_t i = 0; i < d.numel(); ++i)
                           d.data<float>()[i] = g.dy().data<float>()[i] * other.get().data<float>()[i];
                         g.give(slot, d, "d");
                       }
                     });
    return result;
  }
  Variable sum(Context& c, const Variable& a, const Variable& b) {
    Tensor y = c.empty_like(a.value(), "sum");
    backend::add(c.stream(), a.value(), b.value(), y);
    Variable result = c.result(y, c.differentiates({&a, &b}));
    if (result.requires_grad())
      c.tape()->record("sum", result, [slot_a = a.slot(), slot_b = b.slot()](Backward& g) {
        if (slot_a) g.pass(slot_a, !slot_b, "da");
        if (slot_b) g.pass(slot_b, true, "db");
      });
    return result;
  }

  std::shared_ptr<Allocator> memory;
  backend::Stream stream;
  Context cx;
  Tape tape;
  int calls = 0;
};

TEST_F(Tapes, WalksBackAndEmpties) {
  cx.set_tape(&tape);
  const Variable x = leaf({1, 2});
  const Variable y = times(cx, times(cx, x, 3), 5);
  EXPECT_EQ(tape.size(), 2u);
  tape.backward(cx, y, tensor({1, 10}));
  EXPECT_THAT(grad(x), ElementsAre(15, 150));
  EXPECT_TRUE(tape.empty());
}

TEST_F(Tapes, TheSameInputTwiceAddsUp) {
  cx.set_tape(&tape);
  const Variable x = leaf({2, 3});
  tape.backward(cx, sum(cx, sum(cx, x, x), product(cx, x, x)), tensor({1, 1}));
  EXPECT_THAT(grad(x), ElementsAre(2 + 2 * 2, 2 + 2 * 3));
}

TEST_F(Tapes, ConstantsAndUnusedResultsCostNothing) {
  cx.set_tape(&tape);
  const Variable constant(tensor({7}));
  times(cx, constant, 2);
  EXPECT_TRUE(tape.empty());
  const Variable x = leaf({1});
  const Variable unused = times(cx, x, 100), y = times(cx, x, 3);
  tape.backward(cx, y, tensor({1}));
  EXPECT_THAT(grad(x), ElementsAre(3));
}

TEST_F(Tapes, NoGradRecordsNothing) {
  cx.set_tape(&tape);
  {
    const NoGrad off(cx);
    EXPECT_FALSE(times(cx, leaf({1}), 2).requires_grad());
  }
  EXPECT_TRUE(tape.empty());
  EXPECT_EQ(cx.tape(), &tape);
}

TEST_F(Tapes, NothingTrainableIsAnError) {
  cx.set_tape(&tape);
  try {
    tape.backward(cx, Variable(tensor({1})), tensor({1}));
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("nothing here is trainable; did the adapter match any layer?"));
  }
}

TEST_F(Tapes, ParametersAccumulateAndKeepTheirBuffer) {
  Parameter p = make_parameter("p", tensor({2, 4}));
  allocate_grad(p, *memory);
  const std::byte* buffer = p.grad().raw();
  for (int micro = 0; micro < 3; ++micro) {
    cx.set_tape(&tape);
    tape.backward(cx, times(cx, p.variable, 10), tensor({1, 2}));
  }
  EXPECT_THAT(values(p.grad()), ElementsAre(30, 60));
  EXPECT_EQ(p.grad().raw(), buffer);
  clear_grad(p);
  tape.backward(cx, sum(cx, p.variable, times(cx, p.variable, 2)), tensor({1, 1}));
  EXPECT_THAT(values(p.grad()), ElementsAre(3, 3));
  EXPECT_EQ(p.grad().raw(), buffer);
}

TEST_F(Tapes, ActivationsDieAsBackwardWalks) {
  cx.set_tape(&tape);
  const Variable x = leaf(std::vector<float>(1 << 14, 1));
  memory->ledger().reset_peak();
  {
    Variable y = x;
    for (int i = 0; i < 10; ++i) y = product(cx, y, y);
    const int64_t kept = memory->ledger().current_bytes();
    tape.backward(cx, y, tensor(std::vector<float>(1 << 14, 1)));
    // Each step of backward adds two gradients while it frees one activation.
    EXPECT_LT(memory->ledger().peak_bytes(), kept + 5 * int64_t{65536});
  }
  EXPECT_LE(memory->ledger().current_bytes(), 2 * 65536);
}

TEST_F(Tapes, RemadeValueIsSharedAndDropped) {
  int made = 0;
  Variable x = leaf({5});
  x.set_remake([&] { return ++made, tensor({5}); });
  const Saved a = x.save(), b = x.save();
  EXPECT_EQ(made, 0);
  EXPECT_EQ(a.get().data<float>()[0], 5);
  EXPECT_EQ(b.get().raw(), a.get().raw());
  EXPECT_EQ(made, 1);
}

struct Watch : OpObserver {
  void on_op(const char* name, bool backward, const Tensor& result, double flops, double) override {
    seen.push_back(std::string(name) + (backward ? "'" : "") + " " + std::to_string(static_cast<int>(flops)) +
                   " " + std::to_string(static_cast<int>(result.data<float>()[0])));
  }
  std::vector<std::string> seen;
};

TEST_F(Tapes, ObserverSeesGradientsAndCosts) {
  Watch watch;
  cx.observer = &watch;
  cx.set_tape(&tape);
  const Variable a = leaf({1}), b = leaf({1});
  const Variable u = times(cx, a, 3), v = times(cx, b, 4);
  tape.backward(cx, sum(cx, u, v), tensor({1}));
  EXPECT_THAT(watch.seen, ElementsAre("sum' 0 1", "sum' 0 1", "times' 1 4", "times' 1 3"));
}

// ---- recompute

// Two inputs and a parameter, with everything used more than once.
struct Recompute : Tapes {
  Parameter p = make_parameter("p", tensor({2, -1}));
  Block block = [this](Context& c, const std::vector<Variable>& in) {
    const Variable u = product(c, in[0], p.variable), v = product(c, u, in[1]);
    return sum(c, times(c, v, 3), product(c, in[0], u));
  };
  // Gradients of (a, b, p) of an expression that also uses a and b outside, before and after.
  std::vector<std::vector<float>> run(bool checkpointed, bool twice, bool nested = false) {
    Tape t;
    cx.set_tape(&t);
    p.variable.slot()->filled = false;
    const Variable a = leaf({0.3f, 1.7f}), b = leaf({-2.1f, 0.9f});
    const Block outer = [&](Context& c, const std::vector<Variable>& in) {
      return times(c, autograd::recompute(c, "inner", block, {in[1], in[0]}), 1.1f);
    };
    const auto call = [&](const std::vector<Variable>& in) {
      if (!checkpointed) return nested ? times(cx, block(cx, {in[1], in[0]}), 1.1f) : block(cx, in);
      return autograd::recompute(cx, "block", nested ? outer : block, in);
    };
    const Variable before = product(cx, a, b);
    Variable y = call({before, b});
    y = call({y, twice ? y : b});
    y = sum(cx, product(cx, y, b),
            product(cx, a, before));  // these come back first: the block's inputs have gradients
    t.backward(cx, y, tensor({0.7f, -0.2f}));
    cx.set_tape(nullptr);
    return {grad(a), grad(b), grad(p.variable)};
  }
};

TEST_F(Recompute, EqualsTheDirectCallBitForBit) {
  for (const bool twice : {false, true})
    for (const bool nested : {false, true}) {
      const auto plain = run(false, twice, nested);
      EXPECT_EQ(run(true, twice, nested), plain) << twice << nested;
    }
}

TEST_F(Recompute, GradientsAreRight) {
  const auto plain = run(false, false);
  // d/da_0 by finite differences of the same f32 expression would be too coarse; the formula by hand:
  const double a = 0.3, b = -2.1, w = 2, dy = 0.7;
  const auto f = [&](double x, double z) { return 3 * x * w * z + x * x * w; };
  const auto y = [&](double a_, double b_) { return f(f(a_ * b_, b_), b_) * b_ + a_ * (a_ * b_); };
  const double h = 1e-6;
  EXPECT_NEAR(plain[0][0], dy * (y(a + h, b) - y(a - h, b)) / (2 * h), 1e-3);
  EXPECT_NEAR(plain[1][0], dy * (y(a, b + h) - y(a, b - h)) / (2 * h), 1e-2);
}

TEST_F(Recompute, ParameterWithoutGradientOfInputs) {
  cx.set_tape(&tape);
  p.variable.slot()->filled = false;
  const Variable x(tensor({3, 4}));
  const Variable y = autograd::recompute(
      cx, "block", [&](Context& c, const std::vector<Variable>& in) { return product(c, in[0], p.variable); },
      {x});
  tape.backward(cx, y, tensor({1, 1}));
  EXPECT_THAT(grad(p.variable), ElementsAre(3, 4));
}

TEST_F(Recompute, ParameterAsInputAndInputAsResult) {
  cx.set_tape(&tape);
  p.variable.slot()->filled = false;
  const Variable x = leaf({3, 4});
  const Variable y = autograd::recompute(
      cx, "block", [&](Context& c, const std::vector<Variable>& in) { return product(c, in[0], in[1]); },
      {x, p.variable});
  const Variable same =
      autograd::recompute(cx, "same", [](Context&, const std::vector<Variable>& in) { return in[0]; }, {y});
  tape.backward(cx, same, tensor({1, 2}));
  EXPECT_THAT(grad(p.variable), ElementsAre(3, 8));
  EXPECT_THAT(grad(x), ElementsAre(2, -2));
}

TEST_F(Recompute, TheTailIsNotComputedAgain) {
  cx.set_tape(&tape);
  const Variable x = leaf({1, 1});
  const Variable y = autograd::recompute(cx, "block",
                                         [&](Context& c, const std::vector<Variable>& in) {
                                           return times(c, times(c, product(c, in[0], in[0]), 2), 3);
                                         },
                                         {x});
  EXPECT_EQ(calls, 2);
  tape.backward(cx, y, tensor({1, 1}));
  EXPECT_EQ(calls, 2);
  EXPECT_THAT(grad(x), ElementsAre(12, 12));
}

TEST_F(Recompute, KeepsOnlyItsInputs) {
  cx.set_tape(&tape);
  const Variable x = leaf(std::vector<float>(1 << 14, 1));
  const int64_t before = memory->ledger().current_bytes();
  Variable y = x;
  for (int i = 0; i < 4; ++i)
    y = autograd::recompute(cx, "block",
                            [&](Context& c, const std::vector<Variable>& in) {
                              Variable v = in[0];
                              for (int k = 0; k < 5; ++k) v = product(c, v, v);
                              return v;
                            },
                            {y});
  EXPECT_EQ(memory->ledger().current_bytes() - before, 4 * 65536);
}

TEST_F(Recompute, AnErrorInTheSecondPassLeavesTheContextWhole) {
  cx.set_tape(&tape);
  int pass = 0;
  const Variable y = autograd::recompute(cx, "block",
                                         [&](Context& c, const std::vector<Variable>& in) {
                                           if (++pass == 2) fail("test", "second pass");
                                           return times(c, in[0], 2);
                                         },
                                         {leaf({1})});
  EXPECT_THROW(tape.backward(cx, y, tensor({1})), Error);
  EXPECT_EQ(cx.tape(), &tape);
  EXPECT_FALSE(cx.lazy);
}

}  // namespace
}  // namespace nibble::autograd
