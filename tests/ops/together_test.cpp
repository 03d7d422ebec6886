// Operations in company: gradients that meet, blocks that run again, few rows, bad shapes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "autograd/recompute.h"
#include "backend/kernels/matvec.h"
#include "tests/ops/guarded_allocator.h"
#include "tests/ops/op_cases.h"

namespace nibble::ops::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

struct Together : testing::Test {
  Together() : stream(memory), cx(stream, memory, kF32) { backend::register_cpu_kernels(); }
  Tensor tensor(const Shape& shape, double scale, uint64_t seed, DType dtype = kF32) {
    const auto v = normal_values(shape.numel(), scale, seed);
    Tensor t = Tensor::empty(memory, shape, dtype, "test");
    for (int64_t i = 0; i < t.numel(); ++i) {
      const auto f = static_cast<float>(v[static_cast<size_t>(i)]);
      if (dtype == kF32) {
        t.data<float>()[i] = f;
      } else {
        t.data<BFloat16>()[i] = to_bf16(f);
      }
    }
    return t;
  }
  Variable leaf(const Shape& shape, uint64_t seed, DType dtype = kF32) {
    return {tensor(shape, 1, seed, dtype), cx.new_slot(shape, dtype)};
  }
  Variable parameter(const Shape& shape, uint64_t seed) {
    return autograd::make_parameter("p", tensor(shape, 0.3, seed)).variable;
  }
  static std::vector<std::byte> bytes(const Tensor& t) { return {t.raw(), t.raw() + t.bytes()}; }
  template <class F>
  static std::string message_of(F f) {
    try {
      f();
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  }

  GuardedAllocator memory;
  backend::Stream stream;
  Context cx;
};

// add() gives its dy away to one input: the other must have memory of its own, because more is added to
// either later.
TEST_F(Together, SharedGradientsDoNotShareMemory) {
  autograd::Tape tape;
  cx.set_tape(&tape);
  const Variable a = leaf({2, 3}, 1), b = leaf({2, 3}, 2), c(tensor({2, 3}, 1, 3));
  const Variable other = gated(cx, a, c, Activation::kSilu);
  const Variable y = add(cx, add(cx, a, b), other);
  const Tensor dy = tensor({2, 3}, 1, 4);
  const std::vector<float> expected(dy.data<float>(), dy.data<float>() + 6);
  tape.backward(cx, y, dy);
  const Tensor db = b.slot()->grad;
  EXPECT_EQ(std::vector<float>(db.data<float>(), db.data<float>() + 6), expected);
  EXPECT_NE(db.raw(), a.slot()->grad.raw());
}

// A decoder-like block: two inputs, LoRA with dropout, attention from one to the other, residual; called
// twice over the same second input, nested in a third call. On and off must agree to the last bit.
TEST_F(Together, RecomputeIsExactWithDropoutInputsAndNesting) {
  for (const DType compute : {kF32, kBF16}) {
    const auto w = frozen("nf4", 12, 12);
    const Variable a = parameter({3, 12}, 11), b = parameter({12, 3}, 12), norm = parameter({12}, 13);
    const backend::AttentionArgs args{
        .heads = 2, .kv_heads = 1, .head_width = 6, .scale = 0.5f, .causal = false, .window = 0};
    const auto narrow = frozen("nf4", 6, 12);
    const Tensor segments = i32_tensor({2, 4}, {0, 9, 0, 7, 9, 10, 7, 11});
    const autograd::Block block = [&](Context& c, const std::vector<Variable>& in) {
      LinearArgs project{
          .weight = w.get(), .trainable = {}, .bias = {}, .lora = {{a, b, 0.5f, 0.3f, 7, 0, 19}}};
      LinearArgs keys{.weight = narrow.get(), .trainable = {}, .bias = {}, .lora = {}};
      const Variable n = rms_norm(c, in[0], norm, 1e-5f);
      const Variable k = linear(c, in[1], keys);
      const Variable h =
          add(c, in[0],
              attention(c, linear(c, n, project), k, gated(c, k, k, Activation::kSilu), segments, args));
      return add(c, h, linear(c, dropout(c, h, 0.1f, 3), project));
    };
    const autograd::Block outer = [&](Context& c, const std::vector<Variable>& in) {
      return autograd::recompute(c, "inner", block, {block(c, in), in[1]});
    };
    const autograd::Block outer_plain = [&](Context& c, const std::vector<Variable>& in) {
      return block(c, {block(c, in), in[1]});
    };
    const auto run = [&](bool on) {
      Context c(stream, memory, compute);
      c.training = true;
      c.seed = 4;
      autograd::Tape tape;
      c.set_tape(&tape);
      for (const Variable* p : {&a, &b, &norm}) p->slot()->filled = false;
      const Variable x = leaf({19, 12}, 1, compute), e = leaf({18, 12}, 2, compute);
      const auto call = [&](const autograd::Block& f, const std::vector<Variable>& in) {
        return on ? autograd::recompute(c, "block", f, in) : f(c, in);
      };
      Variable y = call(block, {x, e});
      y = call(on ? outer : outer_plain, {y, e});
      y = call(block, {y, e});
      tape.backward(c, y, tensor({19, 12}, 1, 5, compute));
      std::vector<std::vector<std::byte>> all = {bytes(y.value())};
      for (const Variable* v : {&x, &e, &a, &b, &norm}) all.push_back(bytes(v->slot()->grad));
      return all;
    };
    EXPECT_TRUE(run(true) == run(false)) << dtype_name(compute);
  }
  EXPECT_EQ(memory.violations(), "");
}

TEST_F(Together, FewRowsComeStraightFromTheStoredForm) {
  for (const char* format : {"f32", "nf4", "int8"}) {
    const auto w = frozen(format, 40, 96);
    const Variable x(tensor({backend::kMatvecRows, 96}, 1, 1));
    const LoraBranch branch{
        .a = parameter({3, 96}, 11), .b = parameter({40, 3}, 12), .scale = 0.25f, .begin = 4, .end = 15};
    const LinearArgs args{.weight = w.get(), .trainable = {}, .bias = {}, .lora = {branch}};
    cx.will_recompute = true;
    const Tensor product = linear(cx, x, args).value();
    cx.will_recompute = false;
    backend::GroupedWeights grouped;
    for (const bool generation : {false, true}) {
      cx.generation = generation ? &grouped : nullptr;
      const Tensor direct = linear(cx, x, args).value();
      for (int64_t i = 0; i < direct.numel(); ++i)
        ASSERT_NEAR(direct.data<float>()[i], product.data<float>()[i], 2e-5) << format << generation;
    }
  }
}

struct Count : autograd::OpObserver {
  void on_op(const char* name, bool backward, const Tensor&, double flops, double) override {
    if (std::string(name) == "linear") (backward ? back : forward) += flops;
  }
  double forward = 0, back = 0;
};
// Layers that read the same x, some with an adapter or a bias, some stored in blocks that generation rounds
// its inputs for: together what each is alone.
TEST_F(Together, LayersOfOneInputAreWhatTheyAreAlone) {
  Context narrow(stream, memory, kBF16);
  const auto q = frozen("q4_k", 48, 256), v = frozen("nf4", 7, 256);
  const Variable a = parameter({3, 256}, 11), b = parameter({48, 3}, 12), bias = parameter({7}, 13);
  const auto up = frozen("q4_k", 16, 256);
  const LinearArgs layers[] = {
      {.weight = q.get(), .trainable = {}, .bias = {}, .lora = {{.a = a, .b = b, .scale = 2, .end = 20}}},
      {.weight = up.get(), .trainable = {}, .bias = {}, .lora = {}},
      {.weight = v.get(), .trainable = {}, .bias = bias, .lora = {}}};
  const Variable all(tensor({40, 256}, 1, 5, kBF16));
  const autograd::NoGrad no_grad(narrow);
  backend::GroupedWeights grouped;
  for (const bool generation : {false, true}) {
    narrow.generation = generation ? &grouped : nullptr;
    for (const int64_t rows : {5, 40}) {
      std::vector<LinearArgs> some(std::begin(layers), std::end(layers));
      some[0].lora[0].end = rows / 2;
      const Variable x(all.value().rows(0, rows));
      const std::vector<Variable> together = linears(narrow, x, some);
      for (size_t i = 0; i < some.size(); ++i)
        EXPECT_EQ(bytes(together[i].value()), bytes(linear(narrow, x, some[i]).value())) << i << ", " << rows;
    }
  }
}

TEST_F(Together, LinearReportsItsProducts) {
  Count count;
  cx.observer = &count;
  autograd::Tape tape;
  cx.set_tape(&tape);
  const auto w = frozen("nf4", 10, 12);
  const Variable x = leaf({20, 12}, 1);
  LinearArgs args{.weight = w.get(), .trainable = {}, .bias = {}, .lora = {}};
  args.lora.push_back({parameter({3, 12}, 2), parameter({10, 3}, 3), 1, 0, 0, 0, 20});
  const Variable y = linear(cx, x, args);
  tape.backward(cx, y, tensor({20, 10}, 1, 4));
  const double base = 2.0 * 20 * 10 * 12, lora = 2.0 * 20 * 3 * (10 + 12);
  EXPECT_EQ(count.forward, base + lora);
  EXPECT_EQ(count.back, base + 2 * lora);  // dx; of the branch dxa and dx, dA and dB
}

TEST_F(Together, BadShapesAreNamed) {
  const auto w = frozen("f32", 10, 12);
  LinearArgs args{.weight = w.get(), .trainable = {}, .bias = {}, .lora = {}};
  const Variable x(tensor({4, 11}, 1, 1)), right(tensor({4, 12}, 1, 1)), gain(tensor({3}, 1, 2));
  EXPECT_THAT(message_of([&] { linear(cx, x, args); }),
              HasSubstr("[linear] x is [4, 11] but the weight is [10, 12]"));
  EXPECT_THAT(message_of([&] { rms_norm(cx, x, gain, 1e-5f); }),
              HasSubstr("[rms_norm] w is [3] but x is 11 wide; does this norm belong to another model?"));
  EXPECT_THAT(message_of([&] { add(cx, x, right); }),
              HasSubstr("[add] shapes [4, 11] and [4, 12] should be equal"));
  args.lora.push_back({parameter({3, 11}, 2), parameter({10, 3}, 3), 1, 0, 0, 0, 4});
  EXPECT_THAT(message_of([&] { linear(cx, right, args); }),
              HasSubstr("[lora] A [3, 11] and B [10, 3] do not fit a weight [10, 12]"));
  args.lora[0] = {parameter({3, 12}, 2), parameter({10, 3}, 3), 1, 0, 0, 2, 5};
  EXPECT_THAT(message_of([&] { linear(cx, right, args); }), HasSubstr("tokens 2 to 5 of 4"));
  args.lora.clear();
  const auto loss = [&](std::vector<int32_t> rows, std::vector<int32_t> labels) {
    return message_of([&] {
      head_cross_entropy(cx, right, args, i32_tensor({static_cast<int64_t>(rows.size())}, rows),
                         i32_tensor({static_cast<int64_t>(labels.size())}, labels), 1, 2);
    });
  };
  EXPECT_THAT(loss({0, 4}, {1, 1}), HasSubstr("row 1 is 4"));
  EXPECT_THAT(loss({2, 1}, {1, 1}), HasSubstr("rows should ascend"));
  EXPECT_THAT(loss({0, 1}, {1, 10}), HasSubstr("label 1 is 10, the vocabulary has 10"));
  EXPECT_EQ(loss({0, 3}, {-1, 9}), "no error");
  const backend::AttentionArgs heads{
      .heads = 2, .kv_heads = 2, .head_width = 6, .scale = 1, .causal = true, .window = 0};
  EXPECT_THAT(message_of([&] {
                attention(cx, right, right, right, i32_tensor({1, 4}, {0, 5, 0, 5}), heads);
              }),
              HasSubstr("segment 0 = queries 0 + 5, keys 0 + 5 does not fit 4 queries and 4 keys"));
  EXPECT_THAT(message_of([&] {
                rope(cx, right, tensor({3, 6}, 1, 1), i32_tensor({4}, {0, 1, 2, 3}), 6);
              }),
              HasSubstr("token 3 has position 3, the table ends at 3"));
  EXPECT_THAT(message_of([&] { dropout(cx, right, 1.0f, 0); }), HasSubstr("below 1, got 1"));
}

TEST_F(Together, NoLabelsAreNoLoss) {
  autograd::Tape tape;
  cx.set_tape(&tape);
  const auto w = frozen("f32", 10, 12);
  const Variable h = leaf({4, 12}, 1);
  const LinearArgs args{.weight = w.get(), .trainable = {}, .bias = {}, .lora = {}};
  const HeadLoss loss = head_cross_entropy(cx, h, args, i32_tensor({0}, {}), i32_tensor({0}, {}), 1, 2);
  EXPECT_EQ(*loss.loss.value().data<float>(), 0);
  EXPECT_EQ(loss.token_losses.numel(), 0);
  tape.backward(cx, loss.loss, tensor({1}, 1, 1));
  for (int i = 0; i < 48; ++i) EXPECT_EQ(h.slot()->grad.data<float>()[i], 0);
}

}  // namespace
}  // namespace nibble::ops::test
