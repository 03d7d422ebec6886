#include <dnnl.h>

#include "backend/cpu/gemm_step.h"
#include "tests/backend/matmul_cases.h"
#include "tests/message_of.h"

namespace nibble::backend {
namespace {

// C against the naive product in f64; of a large one only some elements.
void check(MatmulCase s, DType ta, DType tb, DType tc, MatmulArgs args) {
  SCOPED_TRACE(fmt::format("{} x {} x {}, {}{} {} {} -> {}, accumulate {}", s.m, s.n, s.k,
                           args.transpose_a ? 'T' : 'N', args.transpose_b ? 'T' : 'N', dtype_name(ta),
                           dtype_name(tb), dtype_name(tc), args.accumulate));
  Stream stream(host_allocator());
  const Tensor a = random_tensor(args.transpose_a ? Shape{s.k, s.m} : Shape{s.m, s.k}, ta, 1);
  const Tensor b = random_tensor(args.transpose_b ? Shape{s.n, s.k} : Shape{s.k, s.n}, tb, 2);
  Guarded c = guarded({s.m, s.n}, tc, 3);
  const auto fa = floats_of(a), fb = floats_of(b), old = floats_of(c.tensor);
  matmul(stream, a, b, c.tensor, args);
  c.expect_untouched("matmul");
  const auto got = floats_of(c.tensor);
  const int64_t step = std::max<int64_t>(1, s.m * s.n * s.k / 4'000'000);
  for (int64_t o = 0; o < s.m * s.n; o += step) {
    double sum = 0, size = 0;
    for (int64_t p = 0; p < s.k; ++p) {
      const double term =
          at(fa, args.transpose_a, s.m, s.k, o / s.n, p) * at(fb, args.transpose_b, s.k, s.n, p, o % s.n);
      sum += term;
      size += std::abs(term);
    }
    const double want = args.alpha * sum + (args.accumulate ? old[static_cast<size_t>(o)] : 0);
    // With pairs of bf16 a f32 A is rounded to them.
    const bool rounds_a = ta == kF32 && tb == kBF16 && cpu::bf16_step() != cpu::Step::kFloat;
    const double allowed =
        1e-6 * (size + 1) + (tc == kBF16 ? std::abs(want) / 250 : 0) + (rounds_a ? size / 256 : 0);
    ASSERT_NEAR(got[static_cast<size_t>(o)], want, allowed) << "row " << o / s.n << ", column " << o % s.n;
  }
}

TEST(Matmul, AwkwardSizesEveryTypeAndTransposition) {
  set_threads(1);
  on_every_target([] {
    for (const MatmulCase s : {MatmulCase{1, 1, 1},
                               {0, 3, 2},
                               {3, 0, 2},
                               {3, 5, 0},
                               {5, 3, 7},
                               {6, 16, 4},
                               {7, 17, 33},
                               {13, 31, 5},
                               {2, 65, 9},
                               {98, 33, 10}})
      for (int bits = 0; bits < 8; ++bits)
        for (const DType ta : kFloats)
          for (const DType tb : kFloats)
            for (const DType tc : kFloats)
              check(s, ta, tb, tc,
                    {.transpose_a = (bits & 1) != 0,
                     .transpose_b = (bits & 2) != 0,
                     .accumulate = (bits & 4) != 0,
                     .alpha = 0.5f});
  });
  set_threads(0);
}

// Several tiles of rows, chunks of columns, blocks of k, and slabs of a B that is too large to be packed
// whole.
TEST(Matmul, EveryLevelOfBlocking) {
  on_every_target([] {
    for (const bool t : {false, true}) {
      check({130, 530, 400}, kBF16, kBF16, kBF16, {.transpose_a = t, .transpose_b = !t, .accumulate = t});
      check({60, 70, 900}, kF32, kBF16, kF32, {.transpose_a = t, .transpose_b = t});
    }
    check({97, 2060, 5}, kF32, kF32, kF32, {});
  });
  check({100, 600, 5000}, kBF16, kF32, kBF16, {.accumulate = true});
  check({100, 600, 5000}, kF32, kBF16, kF32, {.transpose_b = true, .accumulate = true});
}

TEST(Matmul, SameBytesForAnyThreads) {
  Stream stream(host_allocator());
  for (const MatmulCase s : {MatmulCase{200, 100, 500}, {20, 300, 800}, {513, 16, 64}, {100, 600, 5000}})
    for (const DType t : kFloats)
      for (const bool transposed : {false, true}) {
        const Tensor a = random_tensor(transposed ? Shape{s.k, s.m} : Shape{s.m, s.k}, t, 1),
                     b = random_tensor({s.k, s.n}, t, 2);
        expect_same(Same::kThreads, [&] {
          Tensor c = Tensor::empty(host_allocator(), {s.m, s.n}, t, "c");
          matmul(stream, a, b, c, {.transpose_a = transposed});
          return bytes_of(c);
        });
      }
}

// A row's result depends on that row alone: not on how many others there are, nor on where the operands lie.
TEST(Matmul, RowsDoNotDependOnTheirNeighbours) {
  Stream stream(host_allocator());
  on_every_target([&] {
    const Tensor a = random_tensor({301, 700}, kF32, 1), b = random_tensor({90, 700}, kF32, 2);
    Tensor all = Tensor::empty(host_allocator(), {301, 90}, kF32, "c");
    matmul(stream, a, b, all, {.transpose_b = true});
    std::vector<float> moved(700 + 1);
    for (const int64_t row : {0, 5, 100, 300}) {
      std::memcpy(moved.data() + 1, a.rows(row, row + 1).raw(), 700 * sizeof(float));
      Tensor one = Tensor::empty(host_allocator(), {1, 90}, kF32, "c");
      matmul(stream, Tensor::borrow(moved.data() + 1, {1, 700}, kF32, nullptr), b, one,
             {.transpose_b = true});
      EXPECT_EQ(bytes_of(one), bytes_of(all.rows(row, row + 1)));
    }
  });
}

// The library's product is the composed form.
TEST(Matmul, AgreesWithTheLibrary) {
  register_cpu_kernels();
  Stream stream(host_allocator());
  for (const MatmulCase s : {MatmulCase{256, 576, 576}, {256, 192, 1536}, {16, 576, 2048}}) {
    const Tensor a = random_tensor({s.m, s.k}, kF32, 1), b = random_tensor({s.n, s.k}, kF32, 2);
    Tensor ours = Tensor::empty(host_allocator(), {s.m, s.n}, kF32, "c"),
           theirs = Tensor::empty(host_allocator(), {s.m, s.n}, kF32, "c");
    matmul(stream, a, b, ours, {.transpose_b = true});
    ASSERT_EQ(dnnl_sgemm('N', 'T', s.m, s.n, s.k, 1, a.data<float>(), s.k, b.data<float>(), s.k, 0,
                         theirs.data<float>(), s.n),
              dnnl_success);
    expect_near(ours, doubles_of(theirs), 2e-6, "library");
  }
}

// Products of bf16 pairs, by the processor's instruction where there is one and by its emulation everywhere.
class Pairs : public testing::TestWithParam<cpu::Step> {
 protected:
  void SetUp() override {
    if (GetParam() == cpu::Step::kPair && cpu::bf16_step() != cpu::Step::kPair)
      GTEST_SKIP() << "this processor has no products of bf16";
    cpu::force_bf16_step(GetParam());
  }
  void TearDown() override { cpu::force_bf16_step(std::nullopt); }
  // The instruction exists in one instruction set alone.
  template <class F>
  void on_targets(const F& f) {
    if (GetParam() == cpu::Step::kPair) return f();
    on_every_target(f);
  }
};

TEST_P(Pairs, EveryTypeAndTransposition) {
  on_targets([] {
    for (const MatmulCase s :
         {MatmulCase{97, 1, 2}, {98, 33, 10}, {101, 70, 402}, {130, 70, 900}, {100, 40, 7}})
      for (int bits = 0; bits < 8; ++bits)
        for (const DType ta : kFloats)
          for (const DType tc : kFloats)
            check(s, ta, kBF16, tc,
                  {.transpose_a = (bits & 1) != 0,
                   .transpose_b = (bits & 2) != 0,
                   .accumulate = (bits & 4) != 0,
                   .alpha = 0.5f});
  });
  check({100, 600, 5000}, kBF16, kBF16, kBF16, {.accumulate = true});
  check({100, 2100, 5000}, kF32, kBF16, kF32, {.transpose_b = true, .accumulate = true});
}

TEST_P(Pairs, SameBytesForAnyThreads) {
  Stream stream(host_allocator());
  const Tensor a = random_tensor({513, 300}, kBF16, 1), b = random_tensor({300, 90}, kBF16, 2);
  std::string first;
  for (const int count : {1, 2, 3}) {
    set_threads(count);
    Tensor c = Tensor::empty(host_allocator(), {513, 90}, kBF16, "c");
    matmul(stream, a, b, c, {});
    if (first.empty()) first = bytes_of(c);
    EXPECT_TRUE(bytes_of(c) == first) << count << " threads";
  }
  set_threads(0);
}

// T and C against the naive sums in f64; T takes part in C as it was stored.
void check(LowRankCase s, DType type, DType tc, LowRankArgs args) {
  SCOPED_TRACE(fmt::format("{} x {} x {} with {}, {} -> {}, transposed {}, accumulate {}", s.m, s.n, s.k, s.r,
                           dtype_name(type), dtype_name(tc), args.transpose, args.accumulate));
  Stream stream(host_allocator());
  const bool tr = args.transpose;
  const Tensor x = random_tensor({s.m, s.k}, type, 1),
               w = random_tensor(tr ? Shape{s.n, s.k} : Shape{s.k, s.n}, type, 2),
               p = random_tensor(tr ? Shape{s.r, s.k} : Shape{s.k, s.r}, type, 4),
               q = random_tensor(tr ? Shape{s.n, s.r} : Shape{s.r, s.n}, type, 5);
  Guarded c = guarded({s.m, s.n}, tc, 3), t = guarded({s.m, s.r}, type, 6);
  const auto old = floats_of(c.tensor);
  low_rank_matmul(stream, x, w, p, q, t.tensor, c.tensor, args);
  c.expect_untouched("low_rank_matmul, C");
  t.expect_untouched("low_rank_matmul, T");
  const auto fx = floats_of(x), fw = floats_of(w), fp = floats_of(p), fq = floats_of(q),
             got = floats_of(c.tensor), ft = floats_of(t.tensor);
  for (int64_t i = 0; i < s.m; ++i) {
    for (int64_t j = 0; j < s.r; ++j) {
      double sum = 0, size = 0;
      for (int64_t l = 0; l < s.k; ++l) {
        const double term = at(fx, false, s.m, s.k, i, l) * at(fp, tr, s.k, s.r, l, j);
        sum += term;
        size += std::abs(term);
      }
      const double want = args.alpha * sum;
      ASSERT_NEAR(ft[static_cast<size_t>(i * s.r + j)], want,
                  1e-6 * (size + 1) + (type == kBF16 ? std::abs(want) / 250 : 0))
          << "T, row " << i << ", column " << j;
    }
    for (int64_t j = i % 7; j < s.n; j += 7) {
      double sum = args.accumulate ? old[static_cast<size_t>(i * s.n + j)] : 0, size = 0;
      for (int64_t l = 0; l < s.k; ++l) {
        const double term = at(fx, false, s.m, s.k, i, l) * at(fw, tr, s.k, s.n, l, j);
        sum += term;
        size += std::abs(term);
      }
      const double without = sum;
      for (int64_t l = 0; l < s.r; ++l) {
        const double term = args.beta * at(ft, false, s.m, s.r, i, l) * at(fq, tr, s.r, s.n, l, j);
        sum += term;
        size += std::abs(term);
      }
      // Half a step of bf16 (1/256) at the end; with few rows another before the pair is added.
      const double rounded = std::abs(sum) + (s.m <= 96 ? std::abs(without) : 0);
      const double roundings = tc == kBF16 ? rounded / 250 : 0;
      ASSERT_NEAR(got[static_cast<size_t>(i * s.n + j)], sum, 1e-6 * (size + 1) + roundings)
          << "row " << i << ", column " << j;
    }
  }
}

TEST(LowRankMatmul, EverySizeOfPairBesideEverySizeOfProduct) {
  on_every_target([] {
    for (const LowRankCase s :
         {LowRankCase{100, 20, 7, 1}, {130, 70, 401, 16}, {97, 33, 20, 37}, {5, 8, 9, 3}})
      for (const DType type : kFloats)
        for (const DType tc : kFloats)
          for (int bits = 0; bits < 4; ++bits)
            check(s, type, tc,
                  {.transpose = (bits & 1) != 0, .accumulate = (bits & 2) != 0, .alpha = 0.5f, .beta = 2});
  });
  // Slabs of k, and several slices of columns.
  check({100, 600, 5000, 8}, kBF16, kBF16, {.transpose = true, .beta = 0.25f});
  check({100, 2100, 1100, 8}, kF32, kF32, {.alpha = 0.25f});
}

TEST_P(Pairs, LowRank) {
  on_targets([] {
    for (const LowRankCase s :
         {LowRankCase{100, 20, 8, 2}, {130, 70, 402, 16}, {97, 33, 20, 38}, {100, 33, 20, 3}})
      for (const DType tc : kFloats)
        for (int bits = 0; bits < 4; ++bits)
          check(s, kBF16, tc,
                {.transpose = (bits & 1) != 0, .accumulate = (bits & 2) != 0, .alpha = 0.5f, .beta = 2});
  });
  check({100, 600, 5000, 8}, kBF16, kBF16, {.transpose = true, .beta = 0.25f});
}

INSTANTIATE_TEST_SUITE_P(Steps, Pairs, testing::Values(cpu::Step::kPair, cpu::Step::kEmulatedPair),
                         [](const auto& step) {
                           return step.param == cpu::Step::kPair ? "Processor" : "Emulated";
                         });

void expect_thin_result_of_the_plain_product() {
  Stream stream(host_allocator());
  on_every_target([&] {
    for (const DType type : kFloats) {
      const Tensor x = random_tensor({150, 900}, type, 1), w = random_tensor({300, 900}, type, 2),
                   p = random_tensor({16, 900}, type, 3), q = random_tensor({300, 16}, type, 4);
      Tensor t = Tensor::empty(host_allocator(), {150, 16}, type, "t"),
             plain = Tensor::empty(host_allocator(), {150, 16}, type, "t"),
             c = Tensor::empty(host_allocator(), {150, 300}, type, "c");
      low_rank_matmul(stream, x, w, p, q, t, c, {.transpose = true});
      matmul(stream, x, p, plain, {.transpose_b = true});
      EXPECT_EQ(bytes_of(t), bytes_of(plain)) << dtype_name(type);
    }
  });
}

// T has the bits of the plain product: a recomputed tail makes it that way.
TEST(LowRankMatmul, ThinResultEqualsThePlainProduct) {
  expect_thin_result_of_the_plain_product();
  cpu::force_bf16_step(cpu::Step::kEmulatedPair);
  expect_thin_result_of_the_plain_product();
  cpu::force_bf16_step(std::nullopt);
}

TEST(LowRankMatmul, SameBytesForAnyThreads) {
  Stream stream(host_allocator());
  for (const DType type : kFloats) {
    const Tensor x = random_tensor({200, 500}, type, 1), w = random_tensor({90, 500}, type, 2),
                 p = random_tensor({16, 500}, type, 3), q = random_tensor({90, 16}, type, 4);
    expect_same(Same::kThreads, [&] {
      Tensor t = Tensor::empty(host_allocator(), {200, 16}, type, "t"),
             c = Tensor::empty(host_allocator(), {200, 90}, type, "c");
      low_rank_matmul(stream, x, w, p, q, t, c, {.transpose = true});
      return bytes_of(t) + bytes_of(c);
    });
  }
}

// A result larger than the caches is stored past them, where it is not added to.
TEST(Matmul, ALargeResultIsWhatAddingItToZeroGives) {
  on_every_target([] {
    Stream stream(host_allocator());
    for (const DType type : kFloats)
      for (const int64_t n : {32768 + 16, 32768 + 9}) {
        const Tensor a = random_tensor({130, 6}, type, 1), b = random_tensor({n, 6}, type, 2);
        const Tensor set = random_tensor({130, n}, kF32, 3),
                     added = Tensor::empty(host_allocator(), {130, n}, kF32, "added");
        std::fill_n(added.data<float>(), added.numel(), 0.0f);
        Tensor to_set = set, to_add = added;
        matmul(stream, a, b, to_set, {.transpose_b = true});
        matmul(stream, a, b, to_add, {.transpose_b = true, .accumulate = true});
        EXPECT_EQ(floats_of(set), floats_of(added)) << n;
      }
  });
}

void check_thin(int64_t rows, int64_t r, int64_t n, DType ts, DType tx, ThinArgs args) {
  SCOPED_TRACE(fmt::format("{} rows, {} x {}, {} {}, transposed {}, accumulate {}", rows, r, n,
                           dtype_name(ts), dtype_name(tx), args.transpose_out, args.accumulate));
  Stream stream(host_allocator());
  const Tensor s = random_tensor({rows, r}, ts, 1), x = random_tensor({rows, n}, tx, 2);
  Guarded g = guarded(args.transpose_out ? Shape{n, r} : Shape{r, n}, kF32, 3);
  const auto fs = floats_of(s), fx = floats_of(x), old = floats_of(g.tensor);
  thin_gradient(stream, s, x, g.tensor, args);
  g.expect_untouched("thin_gradient");
  const auto got = floats_of(g.tensor);
  for (int64_t i = 0; i < r; ++i)
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0, size = 0;
      for (int64_t t = 0; t < rows; ++t) {
        const double term = at(fs, false, rows, r, t, i) * at(fx, false, rows, n, t, j);
        sum += term;
        size += std::abs(term);
      }
      const auto o = static_cast<size_t>(args.transpose_out ? j * r + i : i * n + j);
      ASSERT_NEAR(got[o], args.alpha * sum + (args.accumulate ? old[o] : 0), 1e-6 * (size + 1))
          << "row " << i << ", column " << j;
    }
}

TEST(ThinGradient, AwkwardSizesEveryTypeAndOrder) {
  using Forced = std::optional<cpu::Step>;
  on_every_target([] {
    for (const Forced step : {Forced(), Forced(cpu::Step::kFloat), Forced(cpu::Step::kEmulatedPair)}) {
      cpu::force_bf16_step(step);
      for (const auto& [rows, r, n] : {std::array<int64_t, 3>{1, 1, 1},
                                       {0, 2, 3},
                                       {7, 5, 17},
                                       {300, 16, 100},
                                       {513, 7, 33},
                                       {40, 65, 9}})
        for (const DType ts : kFloats)
          for (const DType tx : kFloats)
            for (int bits = 0; bits < 4; ++bits)
              check_thin(rows, r, n, ts, tx,
                         {.transpose_out = (bits & 1) != 0, .accumulate = (bits & 2) != 0, .alpha = 0.5f});
    }
  });
  cpu::force_bf16_step(std::nullopt);
}

TEST(ThinGradient, SameBytesForAnyThreads) {
  Stream stream(host_allocator());
  for (const DType type : kFloats) {
    const Tensor s = random_tensor({600, 16}, type, 1), x = random_tensor({600, 300}, type, 2);
    expect_same(Same::kThreads, [&] {
      Tensor g = Tensor::empty(host_allocator(), {16, 300}, kF32, "g");
      thin_gradient(stream, s, x, g, {});
      return bytes_of(g);
    });
  }
}

TEST(Matmul, ColumnsOfABeyondKAreNotRead) {
  Stream stream(host_allocator());
  on_every_target([&] {
    for (const int64_t m : {5, 130})
      for (const DType ta : kFloats)
        for (const DType tb : kFloats) {
          const int64_t k = 34, ld = 40, n = 70;
          const Tensor narrow = random_tensor({m, k}, ta, 1), b = random_tensor({k, n}, tb, 2);
          Tensor wide = Tensor::empty(host_allocator(), {m, ld}, ta, "wide"),
                 of_narrow = random_tensor({m, n}, kF32, 3), of_wide = random_tensor({m, n}, kF32, 4);
          const auto row = static_cast<size_t>(narrow.bytes() / m),
                     next = static_cast<size_t>(wide.bytes() / m);
          std::memset(wide.raw(), 0xFF, static_cast<size_t>(wide.bytes()));  // NaN
          for (size_t i = 0; i < static_cast<size_t>(m); ++i)
            std::memcpy(wide.raw() + i * next, narrow.raw() + i * row, row);
          matmul(stream, narrow, b, of_narrow, {});
          matmul(stream, wide, b, of_wide, {});
          EXPECT_EQ(bytes_of(of_wide), bytes_of(of_narrow)) << m << " rows";
        }
  });
}

TEST(Matmul, RefusesSidesOfDifferentK) {
  register_cpu_kernels();
  Stream stream(host_allocator());
  const Tensor a = random_tensor({2, 3}, kF32, 1), b = random_tensor({4, 2}, kF32, 2);
  Tensor c = random_tensor({2, 2}, kF32, 3);
  EXPECT_EQ(message_of([&] { matmul(stream, a, b, c, {}); }),
            "[matmul] k is 4 in B [4, 2] and does not fit A [2, 3]");
}

TEST(Matmul, RefusesOtherTypes) {
  register_cpu_kernels();
  Stream stream(host_allocator());
  Tensor half = Tensor::empty(host_allocator(), {2, 2}, kF16, "half"), c = random_tensor({2, 2}, kF32, 1);
  try {
    matmul(stream, half, c, c, {});
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "[matmul] expected f32 or bf16, got f16");
  }
}

}  // namespace
}  // namespace nibble::backend
