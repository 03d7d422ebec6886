#include <dnnl.h>

#include "tests/backend/kernel_cases.h"

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
    const double allowed = 1e-6 * (size + 1) + (tc == kBF16 ? std::abs(want) / 250 : 0);
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
