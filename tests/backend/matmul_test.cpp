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
void check_fixed(Case s, const Tensor& a, const Tensor& b, const Int8Weight* int8, DType tc, bool transposed,
                 bool accumulate) {
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
          .fixed_point = true,
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
void check_int8(Case s, DType ta, DType tc, bool transposed, bool accumulate) {
  const Int8Weight b(transposed ? s.n : s.k, transposed ? s.k : s.n);
  check_fixed(s, random_tensor({s.m, s.k}, ta, 1), b.codes, &b, tc, transposed, accumulate);
}
void check_fixed(Case s, DType ta, DType tb, DType tc, bool transposed, bool accumulate) {
  check_fixed(s, random_tensor({s.m, s.k}, ta, 1),
              random_tensor(transposed ? Shape{s.n, s.k} : Shape{s.k, s.n}, tb, 2), nullptr, tc, transposed,
              accumulate);
}

TEST(FixedPoint, AwkwardSizesEveryType) {
  set_threads(1);
  on_every_target([] {
    for (const Case s : {Case{1, 1, 2},
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
    matmul(stream, a, b, c, {.transpose_b = true, .fixed_point = true});
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
  matmul(stream, a, b, c, {.transpose_b = true, .fixed_point = true});
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
  matmul(stream, na, nb, c, {.transpose_b = transposed, .fixed_point = true});
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
  constexpr int64_t kColumns = 33, kDepth = 128;
  for (const bool transposed : {false, true})
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
      for (const int64_t place : {0, 63, 64, 127}) {
        Tensor a = random_tensor({100, kDepth}, kF32, 1), c = random_tensor({100, kColumns}, kF32, 2),
               b = random_tensor(transposed ? Shape{kColumns, kDepth} : Shape{kDepth, kColumns}, kF32, 3);
        a.data<float>()[7 * kDepth + place] = bad;
        b.data<float>()[transposed ? 32 * kDepth + place : place * kColumns + 32] = bad;
        std::fill_n(a.data<float>() + 8 * kDepth, kDepth, 0.0f);
        matmul(stream, a, b, c, {.transpose_b = transposed, .fixed_point = true});
        for (int64_t o = 0; o < c.numel(); ++o)
          EXPECT_EQ(std::isnan(c.data<float>()[o]), o / kColumns == 7 || o % kColumns == 32) << o;
        for (int64_t j = 0; j < 32; ++j) EXPECT_EQ(c.data<float>()[8 * kColumns + j], 0) << "a row of zeros";
      }
}

TEST(FixedPoint, SameBytesForAnyThreadsAndAnyNeighbours) {
  Stream stream(host_allocator());
  for (const bool transposed : {false, true})
    for (const bool int8 : {false, true}) {
      const Int8Weight w(transposed ? 300 : 800, transposed ? 800 : 300);
      const Tensor a = random_tensor({200, 800}, kBF16, 1), b = random_tensor(w.codes.shape(), kBF16, 2);
      const MatmulArgs args{
          .transpose_b = transposed, .fixed_point = true, .absmax = int8 ? &w.absmax : nullptr};
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
                   .fixed_point = true,
                   .alpha = 0.5f,
                   .beta = 2,
                   .absmax = absmax});
  c.expect_untouched("low_rank_matmul, C");
  t.expect_untouched("low_rank_matmul, T");
  matmul(stream, x, p, thin, {.transpose_b = transposed, .fixed_point = true, .alpha = 0.5f});
  EXPECT_EQ(bytes_of(t.tensor), bytes_of(thin));
  matmul(stream, x, w, apart,
         {.transpose_b = transposed, .accumulate = accumulate, .fixed_point = true, .absmax = absmax});
  matmul(stream, thin, q, apart,
         {.transpose_b = transposed, .accumulate = true, .fixed_point = s.r % 2 == 0, .alpha = 2});
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
  EXPECT_EQ(message(x, w.codes, {.transpose_b = true, .fixed_point = true}),
            "[matmul] fixed point needs an even k and a left side as it lies, got k 7");
  const Int8Weight even(4, 6);
  const Tensor a = random_tensor({2, 6}, kF32, 1);
  EXPECT_EQ(message(a, even.codes, {.transpose_b = true, .fixed_point = true}),
            "[matmul] int8 codes [4, 6] come with the f32 absmax of each of their rows, got none");
  EXPECT_EQ(message(a, even.codes, {.transpose_b = true, .absmax = &even.absmax}),
            "[matmul] int8 codes are multiplied in fixed point only");
  EXPECT_EQ(message(a, a, {.transpose_a = true, .transpose_b = true, .fixed_point = true}),
            "[matmul] fixed point needs an even k and a left side as it lies, got k 2");
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
