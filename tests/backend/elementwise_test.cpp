#include "tests/backend/kernel_cases.h"

#include <limits>

#include "base/rng.h"

namespace nibble::backend {
namespace {

constexpr int64_t kSizes[] = {0, 1, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 250};

// Runs body for every size and the types of three operands.
template <class Body>
void on_every_case(const Body& body) {
  on_every_target([&] {
    for (const int64_t n : kSizes)
      for (const DType a : kFloats)
        for (const DType b : kFloats)
          for (const DType o : kFloats) {
            SCOPED_TRACE(
                fmt::format("{} values, {} {} -> {}", n, dtype_name(a), dtype_name(b), dtype_name(o)));
            body(n, a, b, o);
          }
  });
}

TEST(Elementwise, AddScaleAndAccumulateAreRoundedOnce) {
  Stream stream(host_allocator());
  on_every_case([&](int64_t n, DType ta, DType tb, DType to) {
    const Tensor a = random_tensor({n}, ta, 1), b = random_tensor({n}, tb, 2);
    const auto fa = floats_of(a), fb = floats_of(b);
    Guarded sum = guarded({n}, to, 3);
    add(stream, a, b, sum.tensor);
    sum.expect_untouched("add");
    const auto got = floats_of(sum.tensor);
    for (size_t i = 0; i < fa.size(); ++i) ASSERT_EQ(got[i], round_to(fa[i] + fb[i], to)) << i;
    for (const bool more : {false, true}) {
      Guarded scaled = guarded({n}, to, 4), copied = guarded({n}, to, 5);
      const auto old = floats_of(scaled.tensor), old_copy = floats_of(copied.tensor);
      scale(stream, a, -0.3f, scaled.tensor, more);
      accumulate(stream, a, copied.tensor, more);
      scaled.expect_untouched("scale");
      copied.expect_untouched("accumulate");
      const auto got_scaled = floats_of(scaled.tensor), got_copy = floats_of(copied.tensor);
      for (size_t i = 0; i < fa.size(); ++i) {
        const float product = fa[i] * -0.3f;
        ASSERT_EQ(got_scaled[i], round_to(more ? old[i] + product : product, to)) << i;
        ASSERT_EQ(got_copy[i], round_to(more ? old_copy[i] + fa[i] : fa[i], to)) << i;
      }
    }
  });
}

TEST(Elementwise, AddInPlace) {
  Stream stream(host_allocator());
  on_every_target([&] {
    const Tensor a = random_tensor({37}, kBF16, 1), b = random_tensor({37}, kBF16, 2);
    Guarded want = guarded({37}, kBF16, 3), left = guarded(a), right = guarded(b);
    add(stream, a, b, want.tensor);
    add(stream, left.tensor, b, left.tensor);
    add(stream, a, right.tensor, right.tensor);
    EXPECT_EQ(bytes_of(left.tensor), bytes_of(want.tensor));
    EXPECT_EQ(bytes_of(right.tensor), bytes_of(want.tensor));
  });
}

TEST(Elementwise, BiasAndItsGradient) {
  Stream stream(host_allocator());
  on_every_target([&] {
    for (const int64_t rows : {0, 1, 3, 128, 300})
      for (const int64_t n : {1, 9, 40}) {
        const Tensor x = random_tensor({rows, n}, kBF16, 1), bias = random_tensor({n}, kF32, 2);
        Guarded out = guarded(x);
        add_bias(stream, out.tensor, bias, out.tensor);
        out.expect_untouched("add_bias");
        const auto fx = floats_of(x), fb = floats_of(bias), got = floats_of(out.tensor);
        std::vector<double> sums(static_cast<size_t>(n));
        for (size_t i = 0; i < fx.size(); ++i) {
          ASSERT_EQ(got[i], round_to(fx[i] + fb[i % fb.size()], kBF16));
          sums[i % fb.size()] += fx[i];
        }
        Guarded total = guarded({n}, kF32, 3);
        sum_rows(stream, x, total.tensor, false);
        total.expect_untouched("sum_rows");
        expect_near(total.tensor, sums, 1e-5, "sum_rows");
        sum_rows(stream, x, total.tensor, true);
        for (double& s : sums) s *= 2;
        expect_near(total.tensor, sums, 1e-5, "sum_rows, accumulated");
      }
  });
}

TEST(Elementwise, Fill) {
  Stream stream(host_allocator());
  for (const DType t : {kF32, kBF16, kI32}) {
    Guarded out({33}, t);
    fill(stream, out.tensor, -7);
    out.expect_untouched("fill");
    for (int64_t i = 0; i < 33; ++i)
      EXPECT_EQ(t == kI32 ? static_cast<float>(out.tensor.data<int32_t>()[i])
                          : floats_of(out.tensor)[static_cast<size_t>(i)],
                -7.0f);
  }
}

TEST(Elementwise, SwigluFollowsItsFormula) {
  Stream stream(host_allocator());
  on_every_case([&](int64_t n, DType tg, DType to, DType ty) {
    Tensor gate = random_tensor({n}, tg, 1);
    if (n > 8 && tg == kF32) {
      gate.data<float>()[3] = 200;
      gate.data<float>()[4] = -200;
      gate.data<float>()[5] = 0;
    }
    const Tensor up = random_tensor({n}, tg, 2), dy = random_tensor({n}, ty, 3);
    const auto g = doubles_of(gate), u = doubles_of(up), d = doubles_of(dy);
    Guarded out = guarded({n}, to, 4);
    gated(stream, gate, up, Activation::kSilu, out.tensor);
    out.expect_untouched("gated");
    for (const bool more : {false, true}) {
      Guarded dgate = guarded({n}, to, 5), dup = guarded({n}, to, 6);
      auto want_gate = doubles_of(dgate.tensor), want_up = doubles_of(dup.tensor), want = want_up;
      for (size_t i = 0; i < g.size(); ++i) {
        const double s = 1 / (1 + std::exp(-g[i]));
        want[i] = g[i] * s * u[i];
        want_gate[i] = (more ? want_gate[i] : 0) + d[i] * u[i] * (s + g[i] * s * (1 - s));
        want_up[i] = (more ? want_up[i] : 0) + d[i] * g[i] * s;
      }
      expect_near(out.tensor, want, 4e-7, "gated");
      gated_backward(stream, dy, gate, up, Activation::kSilu, dgate.tensor, more, dup.tensor, more);
      dgate.expect_untouched("dgate");
      dup.expect_untouched("dup");
      expect_near(dgate.tensor, want_gate, 4e-7, "dgate");
      expect_near(dup.tensor, want_up, 4e-7, "dup");
    }
  });
}

TEST(Elementwise, SwigluGradientsMayReplaceTheirInputsOrBeUnwanted) {
  Stream stream(host_allocator());
  on_every_target([&] {
    for (const DType t : kFloats) {
      const Tensor dy = random_tensor({51}, t, 1), gate = random_tensor({51}, t, 2),
                   up = random_tensor({51}, t, 3);
      Guarded dgate = guarded({51}, t, 4), dup = guarded({51}, t, 5), over_gate = guarded(gate),
              over_up = guarded(up);
      Tensor none;
      gated_backward(stream, dy, gate, up, Activation::kSilu, dgate.tensor, false, none, false);
      gated_backward(stream, dy, gate, up, Activation::kSilu, none, false, dup.tensor, false);
      gated_backward(stream, dy, over_gate.tensor, over_up.tensor, Activation::kSilu, over_gate.tensor, false,
                     over_up.tensor, false);
      EXPECT_EQ(bytes_of(over_gate.tensor), bytes_of(dgate.tensor));
      EXPECT_EQ(bytes_of(over_up.tensor), bytes_of(dup.tensor));
    }
  });
}

TEST(Elementwise, SwigluLetsNanAndInfinityThrough) {
  Stream stream(host_allocator());
  on_every_target([&] {
    const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
    const Tensor gate = tensor_of({nan, inf, 1, 1}, {4}, kF32), up = tensor_of({1, 1, nan, inf}, {4}, kF32);
    Guarded out({4}, kF32);
    gated(stream, gate, up, Activation::kSilu, out.tensor);
    for (const float x : floats_of(out.tensor)) EXPECT_FALSE(std::isfinite(x));
  });
}

// Value and slope in f64, from the definitions.
std::pair<double, double> activated(Activation f, double z) {
  const double density = std::exp(-z * z / 2) / std::sqrt(2 * M_PI), phi = std::erfc(-z / std::sqrt(2.0)) / 2;
  const double a = std::sqrt(2 / M_PI), t = std::tanh(a * (z + 0.044715 * z * z * z)),
               s = 1 / (1 + std::exp(-z));
  switch (f) {
    case Activation::kRelu:
      return {std::max(z, 0.0), z > 0};
    case Activation::kGelu:
      return {z * phi, phi + z * density};
    case Activation::kGeluTanh:
      return {z / 2 * (1 + t), (1 + t) / 2 + z / 2 * (1 - t * t) * a * (1 + 3 * 0.044715 * z * z)};
    case Activation::kTanh: {
      const double y = std::tanh(z);
      return {y, 1 - y * y};
    }
    case Activation::kSilu:
      break;
  }
  return {z * s, s + z * s * (1 - s)};
}

TEST(Elementwise, ActivationsFollowTheirFormulas) {
  Stream stream(host_allocator());
  on_every_case([&](int64_t n, DType tx, DType to, DType ty) {
    for (const Activation f : {Activation::kRelu, Activation::kGelu, Activation::kGeluTanh, Activation::kSilu,
                               Activation::kTanh}) {
      SCOPED_TRACE(static_cast<int>(f));
      Tensor x = random_tensor({n}, tx, 1);
      if (tx == kF32)  // from far below to far above zero
        for (int64_t i = 0; i < n; ++i) x.data<float>()[i] *= i % 7 == 0 ? 9.0f : 2.0f;
      const Tensor dy = random_tensor({n}, ty, 2);
      const auto z = doubles_of(x), d = doubles_of(dy);
      Guarded out = guarded({n}, to, 3), dx = guarded({n}, to, 4);
      auto want = doubles_of(out.tensor), want_dx = doubles_of(dx.tensor);
      for (size_t i = 0; i < z.size(); ++i) {
        const auto [value, slope] = activated(f, z[i]);
        want[i] = value;
        want_dx[i] += d[i] * slope;
      }
      activation(stream, x, f, out.tensor);
      activation_backward(stream, dy, x, f, dx.tensor, true);
      out.expect_untouched("activation");
      dx.expect_untouched("activation_backward");
      expect_near(out.tensor, want, 1e-6, "value");
      expect_near(dx.tensor, want_dx, 2e-6, "slope");
    }
  });
}

TEST(Elementwise, SoftcapFollowsItsFormula) {
  Stream stream(host_allocator());
  on_every_target([&] {
    for (const float cap : {0.5f, 30.0f}) {
      const Tensor x = random_tensor({77}, kF32, 1), dy = random_tensor({77}, kF32, 2);
      for (int64_t i = 0; i < 77; ++i) x.data<float>()[i] *= std::pow(10.0f, static_cast<float>(i % 5) - 2);
      const auto fx = doubles_of(x), fd = doubles_of(dy);
      Guarded y = guarded({77}, kF32, 3), dx = guarded({77}, kF32, 4);
      std::vector<double> want, want_dx;
      for (size_t i = 0; i < fx.size(); ++i) {
        const double t = std::tanh(fx[i] / static_cast<double>(cap));
        want.push_back(static_cast<double>(cap) * t);
        want_dx.push_back(fd[i] * (1 - t * t));
      }
      softcap(stream, x, cap, y.tensor);
      softcap_backward(stream, dy, y.tensor, cap, dx.tensor);
      y.expect_untouched("softcap");
      dx.expect_untouched("softcap_backward");
      expect_near(y.tensor, want, 1e-6, "y");
      expect_near(dx.tensor, want_dx, 2e-6, "dx");
    }
  });
}

TEST(Elementwise, DropoutKeepsWhatPhiloxSays) {
  Stream stream(host_allocator());
  const Rng rng(0x123456789abcdefull, 0xfedcba987654321ull);
  on_every_case([&](int64_t n, DType tx, DType to, DType) {
    const Tensor x = random_tensor({n}, tx, 1);
    for (const float p : {0.0f, 0.25f, 0.9f})
      for (const bool more : {false, true}) {
        Guarded out = guarded({n}, to, 2);
        const auto old = floats_of(out.tensor);
        dropout(stream, x, p, 0x123456789abcdefull, 0xfedcba987654321ull, out.tensor, more);
        out.expect_untouched("dropout");
        const auto fx = floats_of(x), got = floats_of(out.tensor);
        for (size_t i = 0; i < old.size(); ++i) {
          const float kept = rng.uniform(i) >= p ? fx[i] * (1.0f / (1.0f - p)) : 0.0f;
          ASSERT_EQ(got[i], round_to(more ? old[i] + kept : kept, to)) << i;
        }
      }
  });
}

TEST(Elementwise, RowsAreGatheredAndScattered) {
  Stream stream(host_allocator());
  for (const DType tx : kFloats)
    for (const DType to : kFloats) {
      const Tensor x = random_tensor({9, 13}, tx, 1);
      Tensor rows = Tensor::empty(host_allocator(), {3}, kI32, "rows");
      for (int i = 0; i < 3; ++i) rows.data<int32_t>()[i] = 2 + 3 * i;
      Guarded out = guarded({3, 13}, to, 2), back = guarded({9, 13}, to, 3), put = guarded({9, 13}, to, 3);
      const auto old = floats_of(back.tensor);
      scatter_rows(stream, x.rows(0, 3), rows, put.tensor);
      put.expect_untouched("scatter_rows");
      gather_rows(stream, x, rows, out.tensor);
      out.expect_untouched("gather_rows");
      scatter_add_rows(stream, x.rows(0, 3), rows, back.tensor);
      back.expect_untouched("scatter_add_rows");
      for (size_t r = 0; r < 9; ++r)
        for (size_t i = 0; i < 13; ++i) {
          const bool hit = r >= 2 && (r - 2) % 3 == 0;
          const float more = hit ? floats_of(x)[(r - 2) / 3 * 13 + i] : 0.0f;
          EXPECT_EQ(floats_of(back.tensor)[r * 13 + i], round_to(old[r * 13 + i] + more, to));
          EXPECT_EQ(floats_of(put.tensor)[r * 13 + i], hit ? round_to(more, to) : old[r * 13 + i]);
          if (hit) {
            EXPECT_EQ(floats_of(out.tensor)[(r - 2) / 3 * 13 + i], round_to(floats_of(x)[r * 13 + i], to));
          }
        }
    }
}

TEST(Elementwise, SumOfSquaresIsExactAndPassesNan) {
  Stream stream(host_allocator());
  for (const int64_t n : {0, 1, 5, 8, 4095, 4096, 4097, 50000})
    for (const DType t : kFloats) {
      Tensor x = random_tensor({n}, t, 1);
      long double want = 0;
      for (const float v : floats_of(x)) want += static_cast<long double>(v) * v;
      Guarded out({1}, kF32);
      sum_of_squares(stream, x, out.tensor);
      out.expect_untouched("sum_of_squares");
      EXPECT_NEAR(floats_of(out.tensor)[0], want, 1e-7 * static_cast<double>(want));
      if (n == 0 || t == kBF16) continue;
      x.data<float>()[n / 2] = std::numeric_limits<float>::quiet_NaN();
      sum_of_squares(stream, x, out.tensor);
      EXPECT_TRUE(std::isnan(floats_of(out.tensor)[0]));
    }
}

TEST(Elementwise, SameBytesOnEveryInstructionSetAndForAnyThreads) {
  Stream stream(host_allocator());
  const Tensor a = random_tensor({300, 301}, kBF16, 1), b = random_tensor({300, 301}, kF32, 2),
               up = random_tensor({300, 301}, kBF16, 3);
  expect_same(Same::kEverywhere, [&] {
    Tensor out = Tensor::empty(host_allocator(), {300, 301}, kBF16, "out"),
           wide = Tensor::empty(host_allocator(), {300, 301}, kF32, "wide");
    Tensor sums = Tensor::empty(host_allocator(), {301}, kF32, "sums"),
           square = Tensor::empty(host_allocator(), {1}, kF32, "square");
    std::string all;
    add(stream, a, b, out);
    all += bytes_of(out);
    gated(stream, a, up, Activation::kSilu, wide);
    all += bytes_of(wide);
    gated_backward(stream, b, a, up, Activation::kSilu, wide, true, out, false);
    all += bytes_of(wide) + bytes_of(out);
    scale(stream, a, 0.7f, wide, true);
    all += bytes_of(wide);
    dropout(stream, b, 0.1f, 5, 6, wide, true);
    all += bytes_of(wide);
    sum_rows(stream, b, sums, false);
    all += bytes_of(sums);
    sum_of_squares(stream, b, square);
    return all + bytes_of(square);
  });
}

TEST(Elementwise, OtherTypesAreRefused) {
  Stream stream(host_allocator());
  register_cpu_kernels();
  Tensor half = Tensor::empty(host_allocator(), {4}, kF16, "half"), out = random_tensor({4}, kF32, 1);
  try {
    add(stream, half, out, out);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "[add] expected f32 or bf16, got f16");
  }
}

}  // namespace
}  // namespace nibble::backend
