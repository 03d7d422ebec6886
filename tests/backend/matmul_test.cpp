#include <dnnl.h>

#include "backend/cpu/gemm_step.h"
#include "tests/backend/kernel_cases.h"
#include "tests/message_of.h"

namespace nibble::backend {
namespace {

struct Case {
  int64_t m, n, k;
};

double at(const std::vector<float>& v, bool transposed, int64_t rows, int64_t cols, int64_t r, int64_t c) {
  return v[static_cast<size_t>(transposed ? c * rows + r : r * cols + c)];
}

// C against the naive product in f64; of a large one only some elements.
void check(Case s, DType ta, DType tb, DType tc, MatmulArgs args) {
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
    for (const Case s : {Case{1, 1, 1},
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
  for (const Case s : {Case{200, 100, 500}, {20, 300, 800}, {513, 16, 64}, {100, 600, 5000}})
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
  for (const Case s : {Case{256, 576, 576}, {256, 192, 1536}, {16, 576, 2048}}) {
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
    for (const Case s : {Case{97, 1, 2}, {98, 33, 10}, {101, 70, 402}, {130, 70, 900}, {100, 40, 7}})
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

struct LowRankCase {
  int64_t m, n, k, r;
};

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
  on_every_target([] {
    for (const auto& [rows, r, n] :
         {std::array<int64_t, 3>{1, 1, 1}, {0, 2, 3}, {7, 5, 17}, {300, 16, 100}, {513, 7, 33}, {40, 65, 9}})
      for (const DType ts : kFloats)
        for (const DType tx : kFloats)
          for (int bits = 0; bits < 4; ++bits)
            check_thin(rows, r, n, ts, tx,
                       {.transpose_out = (bits & 1) != 0, .accumulate = (bits & 2) != 0, .alpha = 0.5f});
  });
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

// The codes of an int8 weight [rows, cols] and its absmax.
struct Int8Weight {
  Tensor codes, absmax;
  Int8Weight(int64_t rows, int64_t cols)
      : codes(Tensor::empty(host_allocator(), {rows, cols}, kI8, "codes")),
        absmax(random_tensor({rows}, kF32, 9)) {
    const auto v = normal_values(rows * cols, 8);
    for (int64_t i = 0; i < rows * cols; ++i)
      codes.data<int8_t>()[i] =
          static_cast<int8_t>(std::clamp(v[static_cast<size_t>(i)] * 2000, -127.0f, 127.0f));
    for (int64_t r = 0; r < rows; ++r) absmax.data<float>()[r] = std::abs(absmax.data<float>()[r]) + 0.1f;
  }
  Tensor values() const {
    Tensor w = Tensor::empty(host_allocator(), codes.shape(), kF32, "w");
    for (int64_t i = 0; i < codes.numel(); ++i)
      w.data<float>()[i] =
          static_cast<float>(codes.data<int8_t>()[i]) * absmax.data<float>()[i / codes.size(1)] / 127;
    return w;
  }
};

// What rounding a row of A (times the weights' absmax, where its rows are summed over) to 15 bits may change,
// in f64.
void check_int8(Case s, DType ta, DType tc, bool transposed, bool accumulate) {
  SCOPED_TRACE(fmt::format("{} x {} x {}, {} -> {}, transposed {}, accumulate {}", s.m, s.n, s.k,
                           dtype_name(ta), dtype_name(tc), transposed, accumulate));
  Stream stream(host_allocator());
  const Tensor a = random_tensor({s.m, s.k}, ta, 1);
  const Int8Weight b(transposed ? s.n : s.k, transposed ? s.k : s.n);
  Guarded c = guarded({s.m, s.n}, tc, 3);
  const auto fa = floats_of(a), fb = floats_of(b.values()), old = floats_of(c.tensor);
  matmul(stream, a, b.codes, c.tensor,
         {.transpose_b = transposed, .accumulate = accumulate, .alpha = 0.5f, .absmax = &b.absmax});
  c.expect_untouched("matmul");
  const auto got = floats_of(c.tensor);
  const int64_t step = std::max<int64_t>(1, s.m * s.n * s.k / 4'000'000);
  for (int64_t o = 0; o < s.m * s.n; o += step) {
    double sum = 0, size = 0, largest = 0, weights = 0;
    for (int64_t p = 0; p < s.k; ++p) {
      const double x = at(fa, false, s.m, s.k, o / s.n, p), w = at(fb, transposed, s.k, s.n, p, o % s.n);
      const double factor = transposed ? 1 : b.absmax.data<float>()[p];
      sum += x * w;
      size += std::abs(x * w);
      largest = std::max(largest, std::abs(x * factor));
      weights += std::abs(w / factor);
    }
    const double want = 0.5 * sum + (accumulate ? old[static_cast<size_t>(o)] : 0);
    const double rounded = 0.5 * (0.5 * largest / 16383 * weights);
    ASSERT_NEAR(got[static_cast<size_t>(o)], want,
                rounded + 1e-6 * (size + 1) + (tc == kBF16 ? std::abs(want) / 250 : 0))
        << "row " << o / s.n << ", column " << o % s.n;
  }
}

TEST(Int8Matmul, AwkwardSizesEveryType) {
  set_threads(1);
  on_every_target([] {
    for (const Case s :
         {Case{1, 1, 2}, {5, 3, 8}, {6, 16, 4}, {7, 17, 34}, {2, 65, 10}, {98, 33, 10}, {101, 16, 6}})
      for (int bits = 0; bits < 4; ++bits)
        for (const DType ta : kFloats)
          for (const DType tc : kFloats) check_int8(s, ta, tc, (bits & 1) != 0, (bits & 2) != 0);
  });
  set_threads(0);
}

TEST(Int8Matmul, EveryLevelOfBlocking) {
  on_every_target([] {
    for (const bool t : {false, true}) check_int8({130, 530, 900}, kBF16, kBF16, t, t);
    check_int8({60, 70, 1800}, kF32, kF32, true, false);
  });
  for (const bool t : {false, true}) check_int8({100, 2100, 5000}, kBF16, kBF16, t, true);
}

// Integers of 15 bits times codes are summed without any rounding.
TEST(Int8Matmul, WholeNumbersAreExact) {
  Stream stream(host_allocator());
  Tensor a = Tensor::empty(host_allocator(), {100, 768}, kF32, "a"),
         absmax = Tensor::empty(host_allocator(), {40}, kF32, "absmax"),
         codes = Tensor::empty(host_allocator(), {40, 768}, kI8, "codes"),
         c = Tensor::empty(host_allocator(), {100, 40}, kF32, "c");
  for (int64_t i = 0; i < a.numel(); ++i)
    a.data<float>()[i] = static_cast<float>(i % 768 == 5 ? 16383 : i * 37 % 201 - 100);
  for (int64_t i = 0; i < codes.numel(); ++i)
    codes.data<int8_t>()[i] = static_cast<int8_t>(i * 29 % 255 - 127);
  std::fill_n(absmax.data<float>(), 40, 127.0f);
  on_every_target([&] {
    matmul(stream, a, codes, c, {.transpose_b = true, .absmax = &absmax});
    for (int64_t o = 0; o < c.numel(); ++o) {
      int64_t sum = 0;
      for (int64_t p = 0; p < 768; ++p)
        sum +=
            static_cast<int64_t>(a.data<float>()[o / 40 * 768 + p]) * codes.data<int8_t>()[o % 40 * 768 + p];
      ASSERT_NEAR(c.data<float>()[o], static_cast<double>(sum), std::abs(static_cast<double>(sum)) * 0x1p-21)
          << o;
    }
  });
  // The largest sums that there are do not overflow.
  std::fill_n(a.data<float>(), a.numel(), -3.0f);
  std::fill_n(codes.data<int8_t>(), codes.numel(), int8_t{-127});
  matmul(stream, a, codes, c, {.transpose_b = true, .absmax = &absmax});
  EXPECT_NEAR(c.data<float>()[99 * 40 + 39], 3.0 * 127 * 768, 1);
}

TEST(Int8Matmul, ANonFiniteValueSpoilsItsRowAlone) {
  Stream stream(host_allocator());
  const Int8Weight w(33, 64);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
    for (const int64_t column : {0, 63}) {
      Tensor a = random_tensor({100, 64}, kF32, 1), c = random_tensor({100, 33}, kF32, 2);
      a.data<float>()[7 * 64 + column] = bad;
      std::fill_n(a.data<float>() + 8 * 64, 64, 0.0f);
      matmul(stream, a, w.codes, c, {.transpose_b = true, .absmax = &w.absmax});
      for (int64_t o = 0; o < c.numel(); ++o) EXPECT_EQ(std::isnan(c.data<float>()[o]), o / 33 == 7) << o;
      for (int64_t j = 0; j < 33; ++j) EXPECT_EQ(c.data<float>()[8 * 33 + j], 0) << "a row of zeros";
    }
}

TEST(Int8Matmul, SameBytesForAnyThreadsAndAnyNeighbours) {
  Stream stream(host_allocator());
  for (const bool transposed : {false, true}) {
    const Int8Weight w(transposed ? 300 : 800, transposed ? 800 : 300);
    const Tensor a = random_tensor({200, 800}, kBF16, 1);
    expect_same(Same::kThreads, [&] {
      Tensor c = Tensor::empty(host_allocator(), {200, 300}, kBF16, "c"),
             one = Tensor::empty(host_allocator(), {1, 300}, kBF16, "c");
      matmul(stream, a, w.codes, c, {.transpose_b = transposed, .absmax = &w.absmax});
      matmul(stream, a.rows(150, 151), w.codes, one, {.transpose_b = transposed, .absmax = &w.absmax});
      EXPECT_EQ(bytes_of(one), bytes_of(c.rows(150, 151)));
      return bytes_of(c);
    });
  }
}

// A pair beside integers: T has the bits of its own product, C those of what both parts give when they are
// rounded once.
void check_int8_low_rank(LowRankCase s, DType type, bool transposed, bool accumulate) {
  SCOPED_TRACE(fmt::format("{} x {} x {} with {}, {}, transposed {}", s.m, s.n, s.k, s.r, dtype_name(type),
                           transposed));
  Stream stream(host_allocator());
  const Int8Weight w(transposed ? s.n : s.k, transposed ? s.k : s.n);
  const Tensor x = random_tensor({s.m, s.k}, type, 1),
               p = random_tensor(transposed ? Shape{s.r, s.k} : Shape{s.k, s.r}, type, 4),
               q = random_tensor(transposed ? Shape{s.n, s.r} : Shape{s.r, s.n}, type, 5);
  Guarded c = guarded({s.m, s.n}, kF32, 3), t = guarded({s.m, s.r}, type, 6);
  Tensor apart = random_tensor({s.m, s.n}, kF32, 3), thin = random_tensor({s.m, s.r}, type, 7);
  low_rank_matmul(
      stream, x, w.codes, p, q, t.tensor, c.tensor,
      {.transpose = transposed, .accumulate = accumulate, .alpha = 0.5f, .beta = 2, .absmax = &w.absmax});
  c.expect_untouched("low_rank_matmul, C");
  t.expect_untouched("low_rank_matmul, T");
  matmul(stream, x, p, thin, {.transpose_b = transposed, .alpha = 0.5f});
  EXPECT_EQ(bytes_of(t.tensor), bytes_of(thin));
  matmul(stream, x, w.codes, apart,
         {.transpose_b = transposed, .accumulate = accumulate, .absmax = &w.absmax});
  matmul(stream, thin, q, apart, {.transpose_b = transposed, .accumulate = true, .alpha = 2});
  expect_near(c.tensor, doubles_of(apart), 1e-6, "C");
}

TEST(Int8Matmul, LowRank) {
  for (const bool emulated : {false, true}) {
    if (emulated) cpu::force_bf16_step(cpu::Step::kEmulatedPair);
    on_every_target([] {
      for (const LowRankCase s :
           {LowRankCase{100, 20, 8, 2}, {130, 70, 900, 16}, {97, 33, 20, 38}, {5, 8, 10, 4}})
        for (const DType type : kFloats)
          for (int bits = 0; bits < 4; ++bits) check_int8_low_rank(s, type, (bits & 1) != 0, (bits & 2) != 0);
    });
    for (const bool transposed : {false, true})
      check_int8_low_rank({100, 2100, 2500, 8}, kBF16, transposed, true);
    for (const bool transposed : {false, true})
      check_int8_low_rank({100, 2100, 2048, 8}, kBF16, transposed, true);
    cpu::force_bf16_step(std::nullopt);
  }
}

TEST(Int8Matmul, RefusesWhatDoesNotFit) {
  register_cpu_kernels();
  Stream stream(host_allocator());
  const Int8Weight w(4, 7);
  const Tensor x = random_tensor({2, 7}, kF32, 1);
  Tensor c = random_tensor({2, 4}, kF32, 1);
  EXPECT_EQ(message_of([&] { matmul(stream, x, w.codes, c, {.transpose_b = true}); }),
            "[matmul] int8 codes [4, 7] come with the f32 absmax of each of their rows, got none");
  EXPECT_EQ(message_of([&] { matmul(stream, x, w.codes, c, {.transpose_b = true, .absmax = &w.absmax}); }),
            "[matmul] products of int8 codes need an even k and a left side as it lies, got k 7");
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
