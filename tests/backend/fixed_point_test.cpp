#include "tests/backend/matmul_cases.h"
#include "tests/message_of.h"

namespace nibble::backend {
namespace {

// The value of each 128 neighbours along k that is largest beside the others, in column or row `index`.
std::vector<double> largest_of_runs(const std::vector<float>& v, bool transposed, int64_t rows, int64_t cols,
                                    int64_t k, bool along_rows, int64_t index) {
  std::vector<double> largest(static_cast<size_t>((k + 127) / 128), 0.0);
  for (int64_t p = 0; p < k; ++p) {
    double& most = largest[static_cast<size_t>(p / 128)];
    most = std::max(most, std::abs(along_rows ? at(v, transposed, rows, cols, p, index)
                                              : at(v, transposed, rows, cols, index, p)));
  }
  return largest;
}

// A product in fixed point against the f64 product of the same values: rounding moves each value by half a
// step of its run. `b` are floats, or the codes of `int8`.
void check_fixed(MatmulCase s, const Tensor& a, const Tensor& b, const Int8Weight* int8, DType tc,
                 bool transposed, bool accumulate) {
  SCOPED_TRACE(fmt::format("{} x {} x {}, {} {} -> {}, transposed {}, accumulate {}", s.m, s.n, s.k,
                           dtype_name(a.dtype()), dtype_name(b.dtype()), dtype_name(tc), transposed,
                           accumulate));
  Stream stream(host_allocator());
  Guarded c = guarded({s.m, s.n}, tc, 3);
  const auto fa = floats_of(a), fb = floats_of(int8 == nullptr ? b : int8->values()),
             old = floats_of(c.tensor);
  matmul(stream, a, b, c.tensor,
         {.transpose_b = transposed,
          .accumulate = accumulate,
          .fixed_point = FixedPoint::kShort,
          .alpha = 0.5f,
          .absmax = int8 == nullptr ? nullptr : &int8->absmax});
  c.expect_untouched("matmul");
  const auto got = floats_of(c.tensor);
  const bool exact_b = int8 != nullptr && transposed;
  const int64_t step = std::max<int64_t>(1, s.m * s.n * s.k / 4'000'000);
  for (int64_t o = 0; o < s.m * s.n; o += step) {
    const auto most_a = largest_of_runs(fa, false, s.m, s.k, s.k, false, o / s.n),
               most_b = largest_of_runs(fb, transposed, s.k, s.n, s.k, true, o % s.n);
    double sum = 0, size = 0, rounded = 0;
    for (int64_t p = 0; p < s.k; ++p) {
      const double x = at(fa, false, s.m, s.k, o / s.n, p), w = at(fb, transposed, s.k, s.n, p, o % s.n);
      const double dx = most_a[static_cast<size_t>(p / 128)] / 8191 / 2,
                   dw = exact_b ? 0 : most_b[static_cast<size_t>(p / 128)] / 2047 / 2;
      sum += x * w;
      size += std::abs(x * w);
      rounded += dx * std::abs(w) + dw * std::abs(x) + dx * dw;
    }
    const double want = 0.5 * sum + (accumulate ? old[static_cast<size_t>(o)] : 0);
    ASSERT_NEAR(got[static_cast<size_t>(o)], want,
                0.5 * rounded + 1e-6 * (size + 1) + (tc == kBF16 ? std::abs(want) / 250 : 0))
        << "row " << o / s.n << ", column " << o % s.n;
  }
}
void check_int8(MatmulCase s, DType ta, DType tc, bool transposed, bool accumulate) {
  const Int8Weight b(transposed ? s.n : s.k, transposed ? s.k : s.n);
  check_fixed(s, random_tensor({s.m, s.k}, ta, 1), b.codes, &b, tc, transposed, accumulate);
}
void check_fixed(MatmulCase s, DType ta, DType tb, DType tc, bool transposed, bool accumulate) {
  check_fixed(s, random_tensor({s.m, s.k}, ta, 1),
              random_tensor(transposed ? Shape{s.n, s.k} : Shape{s.k, s.n}, tb, 2), nullptr, tc, transposed,
              accumulate);
}

TEST(FixedPoint, AwkwardSizesEveryType) {
  set_threads(1);
  on_every_target([] {
    for (const MatmulCase s : {MatmulCase{1, 1, 2},
                               {5, 3, 8},
                               {6, 16, 4},
                               {7, 17, 34},
                               {2, 65, 10},
                               {98, 33, 10},
                               {101, 16, 6},
                               {8, 21, 66},
                               {99, 40, 190}})
      for (int bits = 0; bits < 4; ++bits)
        for (const DType ta : kFloats)
          for (const DType tc : kFloats) {
            check_int8(s, ta, tc, (bits & 1) != 0, (bits & 2) != 0);
            for (const DType tb : kFloats) check_fixed(s, ta, tb, tc, (bits & 1) != 0, (bits & 2) != 0);
          }
  });
  set_threads(0);
}

TEST(FixedPoint, EveryLevelOfBlocking) {
  on_every_target([] {
    for (const bool t : {false, true}) check_int8({130, 530, 900}, kBF16, kBF16, t, t);
    for (const bool t : {false, true}) check_fixed({130, 530, 900}, kBF16, kBF16, kBF16, t, t);
    check_fixed({60, 70, 1800}, kF32, kBF16, kF32, true, false);
  });
  for (const bool t : {false, true}) check_int8({100, 2100, 5000}, kBF16, kBF16, t, true);
  for (const bool t : {false, true}) check_fixed({100, 2100, 5000}, kBF16, kBF16, kBF16, t, true);
}

// Integers within the levels of both sides are summed without any rounding but that of 24 bits.
TEST(FixedPoint, WholeNumbersAreExact) {
  Stream stream(host_allocator());
  Tensor a = Tensor::empty(host_allocator(), {100, 768}, kF32, "a"),
         b = Tensor::empty(host_allocator(), {40, 768}, kF32, "b"),
         c = Tensor::empty(host_allocator(), {100, 40}, kF32, "c");
  for (int64_t i = 0; i < a.numel(); ++i)
    a.data<float>()[i] = static_cast<float>(i % 128 == 5 ? 8191 : i * 37 % 201 - 100);
  for (int64_t i = 0; i < b.numel(); ++i)
    b.data<float>()[i] = static_cast<float>(i % 128 == 9 ? -2047 : i * 29 % 255 - 127);
  on_every_target([&] {
    matmul(stream, a, b, c, {.transpose_b = true, .fixed_point = FixedPoint::kShort});
    for (int64_t o = 0; o < c.numel(); ++o) {
      double sum = 0, size = 0;
      for (int64_t p = 0; p < 768; ++p) {
        const double term =
            static_cast<double>(a.data<float>()[o / 40 * 768 + p]) * b.data<float>()[o % 40 * 768 + p];
        sum += term;
        size += std::abs(term);
      }
      ASSERT_NEAR(c.data<float>()[o], sum, size * 0x1p-22) << o;
    }
  });
  // The largest sums that there are do not overflow.
  std::fill_n(a.data<float>(), a.numel(), -3.0f);
  std::fill_n(b.data<float>(), b.numel(), -5.0f);
  matmul(stream, a, b, c, {.transpose_b = true, .fixed_point = FixedPoint::kShort});
  EXPECT_NEAR(c.data<float>()[99 * 40 + 39], 15.0 * 768, 1e-2);
}

// Root mean square of what rounding both sides changes in a product of `rows` x 64 columns, in fixed point
// and by storing them as bf16. Every `outliers`-th value of A is 30 times as large (0: none).
std::pair<double, double> errors_of_rounding(int64_t outliers, bool transposed) {
  constexpr int64_t kRows = 50, kColumns = 64, kDepth = 1024;
  Stream stream(host_allocator());
  Tensor a = random_tensor({kRows, kDepth}, kF32, 1);
  if (outliers > 0)
    for (int64_t i = 0; i < a.numel(); i += outliers) a.data<float>()[i] *= 30;
  const Tensor b = random_tensor(transposed ? Shape{kColumns, kDepth} : Shape{kDepth, kColumns}, kF32, 2);
  const auto as_bf16 = [](const Tensor& t) {
    Tensor to = Tensor::empty(host_allocator(), t.shape(), kBF16, "bf16");
    Stream s(host_allocator());
    accumulate(s, t, to, false);
    return to;
  };
  const Tensor na = as_bf16(a), nb = as_bf16(b);
  Tensor c = Tensor::empty(host_allocator(), {kRows, kColumns}, kF32, "c");
  matmul(stream, na, nb, c, {.transpose_b = transposed, .fixed_point = FixedPoint::kShort});
  const auto wide_a = floats_of(a), wide_b = floats_of(b), fa = floats_of(na), fb = floats_of(nb);
  double fixed = 0, stored = 0;
  for (int64_t o = 0; o < kRows * kColumns; ++o) {
    double narrow_sum = 0, wide_sum = 0;
    for (int64_t p = 0; p < kDepth; ++p) {
      const auto product = [&](const std::vector<float>& x, const std::vector<float>& y) {
        return at(x, false, kRows, kDepth, o / kColumns, p) *
               at(y, transposed, kDepth, kColumns, p, o % kColumns);
      };
      narrow_sum += product(fa, fb);
      wide_sum += product(wide_a, wide_b);
    }
    fixed += std::pow(c.data<float>()[o] - narrow_sum, 2);
    stored += std::pow(narrow_sum - wide_sum, 2);
  }
  return {std::sqrt(fixed), std::sqrt(stored)};
}

TEST(FixedPoint, RoundsLessThanStoringAsBf16Did) {
  for (const bool transposed : {false, true}) {
    const auto [even, even_stored] = errors_of_rounding(0, transposed);
    EXPECT_LT(even, 0.25 * even_stored);
    EXPECT_GT(even, 0);
    for (const int64_t outliers : {64, 1000}) {
      const auto [fixed, stored] = errors_of_rounding(outliers, transposed);
      EXPECT_LT(fixed, 0.5 * stored) << "an outlier in " << outliers;
    }
  }
}

TEST(FixedPoint, ANonFiniteValueSpoilsItsRowOrColumnAlone) {
  Stream stream(host_allocator());
  constexpr int64_t kColumns = 33, kDepth = 134;
  for (const DType dtype : {kF32, kBF16})
    for (const bool transposed : {false, true})
      for (const float bad :
           {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
        for (const int64_t place : {0, 63, 64, 127, 133}) {
          Tensor a = random_tensor({100, kDepth}, kF32, 1), c = random_tensor({100, kColumns}, kF32, 2),
                 b = random_tensor(transposed ? Shape{kColumns, kDepth} : Shape{kDepth, kColumns}, kF32, 3);
          a.data<float>()[7 * kDepth + place] = bad;
          b.data<float>()[transposed ? 32 * kDepth + place : place * kColumns + 32] = bad;
          std::fill_n(a.data<float>() + 8 * kDepth, kDepth, 0.0f);
          Tensor narrow_a = Tensor::empty(host_allocator(), a.shape(), dtype, "a"),
                 narrow_b = Tensor::empty(host_allocator(), b.shape(), dtype, "b");
          accumulate(stream, a, narrow_a, false);
          accumulate(stream, b, narrow_b, false);
          matmul(stream, narrow_a, narrow_b, c,
                 {.transpose_b = transposed, .fixed_point = FixedPoint::kShort});
          for (int64_t o = 0; o < c.numel(); ++o)
            EXPECT_EQ(std::isnan(c.data<float>()[o]), o / kColumns == 7 || o % kColumns == 32) << o;
          for (int64_t j = 0; j < 32; ++j)
            EXPECT_EQ(c.data<float>()[8 * kColumns + j], 0) << "a row of zeros";
        }
}

// The largest of a run is found by other instructions in bf16 than in f32.
TEST(FixedPoint, SameBytesForTheSameValuesInEitherType) {
  Stream stream(host_allocator());
  const auto wide = [&](const Tensor& t) {
    Tensor to = Tensor::empty(host_allocator(), t.shape(), kF32, "wide");
    accumulate(stream, t, to, false);
    return to;
  };
  on_every_target([&] {
    for (const bool transposed : {false, true})
      for (const int64_t k : {2, 30, 128, 146, 402}) {
        const Tensor a = random_tensor({101, k}, kBF16, 1),
                     b = random_tensor(transposed ? Shape{37, k} : Shape{k, 37}, kBF16, 2);
        Tensor narrow = Tensor::empty(host_allocator(), {101, 37}, kF32, "c"),
               widened = Tensor::empty(host_allocator(), {101, 37}, kF32, "c");
        const MatmulArgs args{.transpose_b = transposed, .fixed_point = FixedPoint::kShort};
        matmul(stream, a, b, narrow, args);
        matmul(stream, wide(a), wide(b), widened, args);
        EXPECT_TRUE(bytes_of(narrow) == bytes_of(widened)) << k << ", transposed " << transposed;
      }
  });
}

TEST(FixedPoint, SameBytesForAnyThreadsAndAnyNeighbours) {
  Stream stream(host_allocator());
  for (const bool transposed : {false, true})
    for (const bool int8 : {false, true}) {
      const Int8Weight w(transposed ? 300 : 800, transposed ? 800 : 300);
      const Tensor a = random_tensor({200, 800}, kBF16, 1), b = random_tensor(w.codes.shape(), kBF16, 2);
      const MatmulArgs args{
          .transpose_b = transposed, .fixed_point = FixedPoint::kShort, .absmax = int8 ? &w.absmax : nullptr};
      expect_same(Same::kThreads, [&] {
        Tensor c = Tensor::empty(host_allocator(), {200, 300}, kBF16, "c"),
               one = Tensor::empty(host_allocator(), {1, 300}, kBF16, "c");
        matmul(stream, a, int8 ? w.codes : b, c, args);
        matmul(stream, a.rows(150, 151), int8 ? w.codes : b, one, args);
        EXPECT_EQ(bytes_of(one), bytes_of(c.rows(150, 151)));
        return bytes_of(c);
      });
    }
}

// A pair beside it: T has the bits of its own product, C those of what both parts give when they are rounded
// once.
void check_fixed_low_rank(LowRankCase s, DType type, bool int8, bool transposed, bool accumulate) {
  SCOPED_TRACE(fmt::format("{} x {} x {} with {}, {}, transposed {}, int8 {}", s.m, s.n, s.k, s.r,
                           dtype_name(type), transposed, int8));
  Stream stream(host_allocator());
  const Int8Weight codes(transposed ? s.n : s.k, transposed ? s.k : s.n);
  const Tensor floats = random_tensor(codes.codes.shape(), type, 8);
  const Tensor& w = int8 ? codes.codes : floats;
  const Tensor* absmax = int8 ? &codes.absmax : nullptr;
  const Tensor x = random_tensor({s.m, s.k}, type, 1),
               p = random_tensor(transposed ? Shape{s.r, s.k} : Shape{s.k, s.r}, type, 4),
               q = random_tensor(transposed ? Shape{s.n, s.r} : Shape{s.r, s.n}, type, 5);
  Guarded c = guarded({s.m, s.n}, kF32, 3), t = guarded({s.m, s.r}, type, 6);
  Tensor apart = random_tensor({s.m, s.n}, kF32, 3), thin = random_tensor({s.m, s.r}, type, 7);
  low_rank_matmul(stream, x, w, p, q, t.tensor, c.tensor,
                  {.transpose = transposed,
                   .accumulate = accumulate,
                   .fixed_point = FixedPoint::kShort,
                   .alpha = 0.5f,
                   .beta = 2,
                   .absmax = absmax});
  c.expect_untouched("low_rank_matmul, C");
  t.expect_untouched("low_rank_matmul, T");
  matmul(stream, x, p, thin, {.transpose_b = transposed, .fixed_point = FixedPoint::kShort, .alpha = 0.5f});
  EXPECT_EQ(bytes_of(t.tensor), bytes_of(thin));
  matmul(stream, x, w, apart,
         {.transpose_b = transposed,
          .accumulate = accumulate,
          .fixed_point = FixedPoint::kShort,
          .absmax = absmax});
  matmul(stream, thin, q, apart,
         {.transpose_b = transposed,
          .accumulate = true,
          .fixed_point = s.r % 2 == 0 ? FixedPoint::kShort : FixedPoint::kNone,
          .alpha = 2});
  expect_near(c.tensor, doubles_of(apart), 1e-6, "C");
}

TEST(FixedPoint, LowRank) {
  on_every_target([] {
    for (const LowRankCase s : {LowRankCase{100, 20, 8, 2},
                                {130, 70, 900, 16},
                                {97, 33, 20, 38},
                                {99, 33, 130, 3},
                                {100, 40, 66, 140},
                                {5, 8, 10, 4}})
      for (const DType type : kFloats)
        for (int bits = 0; bits < 8; ++bits)
          check_fixed_low_rank(s, type, (bits & 4) != 0, (bits & 1) != 0, (bits & 2) != 0);
  });
  for (int bits = 0; bits < 4; ++bits)
    check_fixed_low_rank({100, 2100, 2500, 8}, kBF16, (bits & 1) != 0, (bits & 2) != 0, true);
}

TEST(FixedPoint, RefusesWhatDoesNotFit) {
  register_cpu_kernels();
  Stream stream(host_allocator());
  const Int8Weight w(4, 7);
  const Tensor x = random_tensor({2, 7}, kF32, 1);
  Tensor c = random_tensor({2, 4}, kF32, 1);
  const auto message = [&](const Tensor& a, const Tensor& b, MatmulArgs args) {
    return message_of([&] { matmul(stream, a, b, c, args); });
  };
  EXPECT_EQ(message(x, w.codes, {.transpose_b = true, .fixed_point = FixedPoint::kShort}),
            "[matmul] fixed point needs an even k and a left side as it lies, got k 7");
  const Int8Weight even(4, 6);
  const Tensor a = random_tensor({2, 6}, kF32, 1);
  EXPECT_EQ(message(a, even.codes, {.transpose_b = true, .fixed_point = FixedPoint::kShort}),
            "[matmul] int8 codes [4, 6] come with the f32 absmax of each of their rows, got none");
  EXPECT_EQ(message(a, even.codes, {.transpose_b = true, .absmax = &even.absmax}),
            "[matmul] int8 codes are multiplied in fixed point only");
  const Tensor b = random_tensor({4, 2}, kF32, 1);
  EXPECT_EQ(message(a, b, {.transpose_a = true, .transpose_b = true, .fixed_point = FixedPoint::kShort}),
            "[matmul] fixed point needs an even k and a left side as it lies, got k 2");
}

}  // namespace
}  // namespace nibble::backend
