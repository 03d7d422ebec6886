#include "backend/cpu/matmul.h"
#include "backend/weight_lease.h"
#include "tests/backend/matmul_cases.h"
#include "tests/message_of.h"

namespace nibble::backend {
namespace {

using cpu::Step;

constexpr int64_t kRun = cpu::kInt8Run;

// With the instruction where there is one, and as it is emulated.
void with_either_step(const std::function<void()>& body) {
  body();
  cpu::force_byte_step(Step::kEmulatedByte);
  body();
  cpu::force_byte_step({});
}

Tensor empty(Shape shape, DType type) { return Tensor::empty(host_allocator(), shape, type, "t"); }

// Against the f64 product of the same values. What is rounded is A, or A times absmax where that goes along
// k, each value by half a step: 1/254 of the largest of its run.
void check_bytes(MatmulCase s, DType ta, DType tc, bool transposed, bool accumulate) {
  SCOPED_TRACE(fmt::format("{} x {} x {}, {} -> {}, transposed {}, accumulate {}", s.m, s.n, s.k,
                           dtype_name(ta), dtype_name(tc), transposed, accumulate));
  Stream stream(host_allocator());
  const Int8Weight w(transposed ? s.n : s.k, transposed ? s.k : s.n);
  const Tensor a = random_tensor({s.m, s.k}, ta, 1);
  Guarded c = guarded({s.m, s.n}, tc, 3);
  const auto fa = floats_of(a), fb = floats_of(w.values()), old = floats_of(c.tensor);
  const auto factor = [&](int64_t p) { return transposed ? 1.0 : w.absmax.data<float>()[p]; };
  matmul(stream, a, w.codes, c.tensor,
         {.transpose_b = transposed,
          .accumulate = accumulate,
          .fixed_point = FixedPoint::kByte,
          .alpha = 0.5f,
          .absmax = &w.absmax});
  c.expect_untouched("matmul");
  const auto got = floats_of(c.tensor);
  const int64_t step = std::max<int64_t>(1, s.m * s.n * s.k / 4'000'000);
  for (int64_t o = 0; o < s.m * s.n; o += step) {
    const int64_t row = o / s.n, column = o % s.n;
    double sum = 0, size = 0, rounded = 0;
    for (int64_t run = 0; run < s.k; run += kRun) {
      const int64_t end = std::min(s.k, run + kRun);
      double most = 0;
      for (int64_t p = run; p < end; ++p)
        most = std::max(most, std::abs(at(fa, false, s.m, s.k, row, p) * factor(p)));
      for (int64_t p = run; p < end; ++p) {
        const double x = at(fa, false, s.m, s.k, row, p), v = at(fb, transposed, s.k, s.n, p, column);
        sum += x * v;
        size += std::abs(x * v);
        rounded += most / 254 * std::abs(v) / factor(p);
      }
    }
    const double want = 0.5 * sum + (accumulate ? old[static_cast<size_t>(o)] : 0);
    ASSERT_NEAR(got[static_cast<size_t>(o)], want,
                0.5 * rounded + 1e-6 * (size + 1) + (tc == kBF16 ? std::abs(want) / 250 : 0))
        << "row " << row << ", column " << column;
  }
}

TEST(ByteProduct, AwkwardSizesEveryType) {
  set_threads(1);
  on_every_target([] {
    with_either_step([] {
      for (const MatmulCase s : {MatmulCase{1, 1, 4},
                                 {5, 3, 8},
                                 {12, 32, 128},
                                 {12, 32, 256},
                                 {13, 33, 260},
                                 {7, 17, 36},
                                 {2, 65, 64},
                                 {98, 33, 12},
                                 {119, 16, 20},
                                 {101, 40, 300}})
        for (int bits = 0; bits < 4; ++bits)
          for (const DType ta : kFloats)
            for (const DType tc : kFloats) check_bytes(s, ta, tc, (bits & 1) != 0, (bits & 2) != 0);
    });
  });
  set_threads(0);
}

TEST(ByteProduct, EveryLevelOfBlocking) {
  on_every_target([] {
    for (const bool t : {false, true}) check_bytes({130, 530, 2052}, kBF16, kBF16, t, t);
    check_bytes({60, 70, 1800}, kF32, kF32, true, false);
  });
  for (const bool t : {false, true}) check_bytes({100, 2100, 5000}, kBF16, kBF16, t, true);
}

// Levels times codes: a run's sum is exact (scales that are no powers of two round what is made of it), and
// the greatest there are do not overflow.
TEST(ByteProduct, LevelsAreExact) {
  Stream stream(host_allocator());
  Tensor a = empty({101, 768}, kF32), c = empty({101, 40}, kF32);
  const auto multiply = [&](const Int8Weight& w, bool transposed) {
    matmul(stream, a, w.codes, c,
           {.transpose_b = transposed, .fixed_point = FixedPoint::kByte, .absmax = &w.absmax});
  };
  for (const bool transposed : {false, true}) {
    Int8Weight w(transposed ? 40 : 768, transposed ? 768 : 40);
    std::fill_n(w.absmax.data<float>(), w.absmax.numel(), 127.0f);
    on_every_target([&] {
      with_either_step([&] {
        for (int64_t i = 0; i < a.numel(); ++i)
          a.data<float>()[i] = static_cast<float>(i % kRun == 5 ? -127 : i * 37 % 201 - 100);
        multiply(w, transposed);
        for (int64_t o = 0; o < c.numel(); ++o) {
          double sum = 0, size = 0;
          for (int64_t p = 0; p < 768; ++p) {
            const double term = static_cast<double>(a.data<float>()[o / 40 * 768 + p]) *
                                w.codes.data<int8_t>()[transposed ? o % 40 * 768 + p : p * 40 + o % 40];
            sum += term;
            size += std::abs(term);
          }
          ASSERT_NEAR(c.data<float>()[o], sum, transposed ? 0 : size * 0x1p-22) << o;
        }
      });
    });
    for (const float extreme : {-3.0f, 3.0f}) {
      std::fill_n(a.data<float>(), a.numel(), extreme);
      std::fill_n(w.codes.data<int8_t>(), w.codes.numel(), int8_t{-128});
      multiply(w, transposed);
      EXPECT_NEAR(c.data<float>()[100 * 40 + 39], -128.0 * extreme * 768, 0.1);
    }
  }
}

TEST(ByteProduct, TheInstructionGivesTheBitsOfItsEmulation) {
  if (cpu::byte_step() != Step::kByte) GTEST_SKIP() << "this processor does not multiply bytes";
  Stream stream(host_allocator());
  for (const bool transposed : {false, true})
    for (const MatmulCase s : {MatmulCase{119, 100, 1044}, {24, 64, 512}, {96, 33, 20}}) {
      const Int8Weight w(transposed ? s.n : s.k, transposed ? s.k : s.n);
      const Tensor a = random_tensor({s.m, s.k}, kBF16, 1);
      std::vector<std::string> results;
      with_either_step([&] {
        Tensor c = empty({s.m, s.n}, kF32);
        matmul(stream, a, w.codes, c,
               {.transpose_b = transposed, .fixed_point = FixedPoint::kByte, .absmax = &w.absmax});
        results.push_back(bytes_of(c));
      });
      EXPECT_TRUE(results[0] == results[1]) << s.m << ", transposed " << transposed;
    }
}

TEST(ByteProduct, ANonFiniteValueSpoilsItsRowOrColumnAlone) {
  Stream stream(host_allocator());
  constexpr int64_t kColumns = 33, kDepth = 264;
  for (const DType dtype : {kF32, kBF16})
    for (const bool transposed : {false, true})
      for (const float bad :
           {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()})
        for (const int64_t place : {0, 15, 16, 127, 128, 255, 256, 263}) {
          Int8Weight w(transposed ? kColumns : kDepth, transposed ? kDepth : kColumns);
          if (transposed) w.absmax.data<float>()[32] = bad;
          Tensor a = random_tensor({100, kDepth}, kF32, 1), c = random_tensor({100, kColumns}, kF32, 2);
          a.data<float>()[7 * kDepth + place] = bad;
          std::fill_n(a.data<float>() + 8 * kDepth, kDepth, 0.0f);
          Tensor narrow = empty(a.shape(), dtype);
          accumulate(stream, a, narrow, false);
          matmul(stream, narrow, w.codes, c,
                 {.transpose_b = transposed, .fixed_point = FixedPoint::kByte, .absmax = &w.absmax});
          for (int64_t o = 0; o < c.numel(); ++o) {
            const bool spoiled = o / kColumns == 7 || (transposed && o % kColumns == 32);
            EXPECT_EQ(std::isfinite(c.data<float>()[o]), !spoiled) << o;
          }
          for (int64_t j = 0; j < 32; ++j)
            EXPECT_EQ(c.data<float>()[8 * kColumns + j], 0) << "a row of zeros";
        }
}

TEST(ByteProduct, SameBytesForTheSameValuesInEitherType) {
  Stream stream(host_allocator());
  on_every_target([&] {
    for (const bool transposed : {false, true})
      for (const int64_t k : {4, 60, 128, 516}) {
        const Int8Weight w(transposed ? 37 : k, transposed ? k : 37);
        const Tensor a = random_tensor({101, k}, kBF16, 1);
        Tensor wide = empty(a.shape(), kF32), of_narrow = empty({101, 37}, kF32),
               of_wide = empty({101, 37}, kF32);
        accumulate(stream, a, wide, false);
        const MatmulArgs args{
            .transpose_b = transposed, .fixed_point = FixedPoint::kByte, .absmax = &w.absmax};
        matmul(stream, a, w.codes, of_narrow, args);
        matmul(stream, wide, w.codes, of_wide, args);
        EXPECT_TRUE(bytes_of(of_narrow) == bytes_of(of_wide)) << k << ", transposed " << transposed;
      }
  });
}

TEST(ByteProduct, SameBytesForAnyThreadsAndAnyNeighbours) {
  Stream stream(host_allocator());
  for (const bool transposed : {false, true}) {
    const Int8Weight w(transposed ? 300 : 1800, transposed ? 1800 : 300);
    const Tensor a = random_tensor({200, 1800}, kBF16, 1);
    const MatmulArgs args{.transpose_b = transposed, .fixed_point = FixedPoint::kByte, .absmax = &w.absmax};
    expect_same(Same::kThreads, [&] {
      Tensor c = empty({200, 300}, kBF16), one = empty({1, 300}, kBF16);
      matmul(stream, a, w.codes, c, args);
      matmul(stream, a.rows(150, 151), w.codes, one, args);
      EXPECT_EQ(bytes_of(one), bytes_of(c.rows(150, 151)));
      return bytes_of(c);
    });
  }
}

// A pair beside it is multiplied as floats: T has the bits of its own product, C what both parts give when
// they are rounded once.
void check_low_rank(LowRankCase s, DType type, bool transposed, bool accumulate) {
  SCOPED_TRACE(fmt::format("{} x {} x {} with {}, {}, transposed {}", s.m, s.n, s.k, s.r, dtype_name(type),
                           transposed));
  Stream stream(host_allocator());
  const Int8Weight w(transposed ? s.n : s.k, transposed ? s.k : s.n);
  const Tensor x = random_tensor({s.m, s.k}, type, 1),
               p = random_tensor(transposed ? Shape{s.r, s.k} : Shape{s.k, s.r}, type, 4),
               q = random_tensor(transposed ? Shape{s.n, s.r} : Shape{s.r, s.n}, type, 5);
  Guarded c = guarded({s.m, s.n}, kF32, 3), t = guarded({s.m, s.r}, type, 6);
  Tensor apart = random_tensor({s.m, s.n}, kF32, 3), thin = random_tensor({s.m, s.r}, type, 7);
  low_rank_matmul(stream, x, w.codes, p, q, t.tensor, c.tensor,
                  {.transpose = transposed,
                   .accumulate = accumulate,
                   .fixed_point = FixedPoint::kByte,
                   .alpha = 0.5f,
                   .beta = 2,
                   .absmax = &w.absmax});
  c.expect_untouched("low_rank_matmul, C");
  t.expect_untouched("low_rank_matmul, T");
  matmul(stream, x, p, thin, {.transpose_b = transposed, .alpha = 0.5f});
  if (s.r % 2 == 0) {
    EXPECT_EQ(bytes_of(t.tensor), bytes_of(thin));
  }
  matmul(stream, x, w.codes, apart,
         {.transpose_b = transposed,
          .accumulate = accumulate,
          .fixed_point = FixedPoint::kByte,
          .absmax = &w.absmax});
  matmul(stream, t.tensor, q, apart, {.transpose_b = transposed, .accumulate = true, .alpha = 2});
  expect_near(c.tensor, doubles_of(apart), 1e-6, "C");
}

TEST(ByteProduct, LowRank) {
  on_every_target([] {
    with_either_step([] {
      for (const LowRankCase s : {LowRankCase{100, 20, 8, 2},
                                  {130, 70, 900, 16},
                                  {97, 33, 20, 38},
                                  {99, 33, 132, 3},
                                  {100, 40, 68, 140},
                                  {5, 8, 12, 4}})
        for (const DType type : kFloats)
          for (int bits = 0; bits < 4; ++bits) check_low_rank(s, type, (bits & 1) != 0, (bits & 2) != 0);
    });
  });
  for (const bool transposed : {false, true}) check_low_rank({100, 2100, 5000, 8}, kBF16, transposed, true);
}

// Who multiplies bytes, and which weights: sides in fours, codes as they are stored.
TEST(ByteProduct, IsAskedForWhereItIsFast) {
  cpu::force_bf16_step(Step::kPair);
  cpu::force_byte_step(Step::kByte);
  EXPECT_EQ(fixed_point_of(Device::kCpu, kBF16, true), FixedPoint::kByte);
  EXPECT_EQ(fixed_point_of(Device::kCpu, kBF16, false), FixedPoint::kNone);
  EXPECT_EQ(fixed_point_of(Device::kCpu, kF32, true), FixedPoint::kNone);
  const quant::Format& int8 = quant::find_format("int8");
  const auto weight = [&](int64_t rows, int64_t cols) {
    return quant::encode(int8, normal_values(rows * cols, 3), {rows, cols}, 64, false);
  };
  Stream stream(host_allocator());
  const quant::Weight w = weight(8, 12);
  const ProductLease lease(stream, w, kBF16);
  EXPECT_EQ(lease.fixed_point(), FixedPoint::kByte);
  EXPECT_EQ(lease.values().raw(), w.codes.raw());
  EXPECT_EQ(lease.absmax(), &w.absmax);
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{8, 10}, {6, 12}}) {
    const quant::Weight odd = weight(rows, cols);
    const ProductLease decoded(stream, odd, kBF16);
    EXPECT_EQ(decoded.fixed_point(), FixedPoint::kNone);
    EXPECT_EQ(decoded.values().dtype(), kBF16);
  }
  cpu::force_byte_step(Step::kEmulatedByte);
  EXPECT_EQ(fixed_point_of(Device::kCpu, kBF16, true), FixedPoint::kNone);
  cpu::force_bf16_step(Step::kFloat);
  cpu::force_byte_step(Step::kByte);
  EXPECT_EQ(fixed_point_of(Device::kCpu, kBF16, true), FixedPoint::kShort);
  cpu::force_byte_step({});
  cpu::force_bf16_step({});
}

TEST(ByteProduct, RefusesWhatDoesNotFit) {
  register_cpu_kernels();
  Stream stream(host_allocator());
  const auto message = [&](const Tensor& a, const Tensor& b, MatmulArgs args) {
    Tensor c = random_tensor({2, 4}, kF32, 1);
    return message_of([&] { matmul(stream, a, b, c, args); });
  };
  const Int8Weight w(4, 6), fours(4, 8);
  const Tensor x = random_tensor({2, 6}, kF32, 1), y = random_tensor({2, 8}, kF32, 1);
  EXPECT_EQ(message(x, w.codes, {.transpose_b = true, .fixed_point = FixedPoint::kByte}),
            "[matmul] bytes need k in fours, a left side as it lies and int8 codes, got k 6 and i8");
  EXPECT_EQ(
      message(y, random_tensor({4, 8}, kF32, 1), {.transpose_b = true, .fixed_point = FixedPoint::kByte}),
      "[matmul] bytes need k in fours, a left side as it lies and int8 codes, got k 8 and f32");
  EXPECT_EQ(message(y, fours.codes, {.transpose_b = true, .fixed_point = FixedPoint::kByte}),
            "[matmul] int8 codes [4, 8] come with the f32 absmax of each of their rows, got none");
}

}  // namespace
}  // namespace nibble::backend
