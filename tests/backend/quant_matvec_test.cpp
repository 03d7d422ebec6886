// Products straight from the stored form, against the decoded values in double precision.
#include <limits>

#include "backend/kernels/matvec.h"
#include "base/parallel.h"
#include "tests/backend/quant_cases.h"

namespace nibble::backend {
namespace {

// The error of one product is bounded by the rounding of f32 sums, of a bf16 result, and of the 16-bit forms
// of inputs and levels, which are relative to the largest of a run (inputs: 64 at most; levels: the block's
// scale).
void expect_close(const std::vector<float>& got, const std::vector<float>& x, const quant::Weight& w,
                  DType in, DType out, const std::string& what) {
  const int64_t rows = w.rows(), cols = w.cols(), count = static_cast<int64_t>(x.size()) / cols;
  std::vector<float> values(static_cast<size_t>(rows * cols));
  quant::decode_rows(w, 0, rows, values.data());
  for (int64_t t = 0; t < count; ++t) {
    for (int64_t r = 0; r < rows; ++r) {
      double sum = 0, magnitude = 0, coarse = 0;
      for (int64_t begin = 0; begin < cols; begin += 64) {
        double most_x = 0, most_w = 0;
        for (int64_t i = begin; i < std::min(cols, begin + 64); ++i) {
          const double a = values[static_cast<size_t>(r * cols + i)],
                       b = x[static_cast<size_t>(t * cols + i)];
          sum += a * b;
          magnitude += std::abs(a * b);
          most_x = std::max(most_x, std::abs(b));
          most_w = std::max(most_w, std::abs(a));
        }
        coarse += 64 * most_x * most_w;
      }
      double bound = magnitude * 1e-6 + (in == kBF16 ? coarse * 6e-5 : 0);
      if (out == kBF16) bound += std::abs(sum) * 0x1.0p-8;
      ASSERT_NEAR(got[static_cast<size_t>(t * rows + r)], sum, bound + 1e-30)
          << what << ", input " << t << ", output " << r;
    }
  }
}

TEST(WeightMatvec, EqualsTheProductWithDecodedValues) {
  on_every_target([] {
    Stream stream(host_allocator());
    for (const int64_t cols : {33, 512, 2304}) {
      for (const auto& [name, w] : every_weight(8, cols)) {
        for (const int64_t count : cols == 33 ? std::vector<int64_t>{1, 16} : std::vector<int64_t>{1, 6}) {
          for (const DType in : {kF32, kBF16}) {
            const DType out = count % 2 == 0 ? kBF16 : kF32;
            const Tensor x = tensor_of(normal_values(count * cols, 7), {count, cols}, in);
            Guarded y({count, 8}, out);
            weight_matvec(stream, x, w, y.tensor);
            y.expect_untouched(name);
            expect_close(floats_of(y.tensor), floats_of(x), w, in, out,
                         name + " " + dtype_name(in) + " " + std::to_string(cols));
          }
        }
      }
    }
  });
}

TEST(WeightMatvec, ZeroAndHugeInputs) {
  on_every_target([] {
    Stream stream(host_allocator());
    const quant::Weight w =
        quant::encode(quant::find_format("nf4"), normal_values(8 * 128), {8, 128}, 64, false);
    std::vector<float> x(256, 0.0f);
    for (size_t i = 128; i < 256; ++i) x[i] = (i % 3 == 0 ? -1.0f : 1.0f) * 1e30f;
    Tensor y = Tensor::empty(host_allocator(), {2, 8}, kF32, "y");
    const Tensor in = tensor_of(x, {2, 128}, kBF16);
    weight_matvec(stream, in, w, y);
    for (int i = 0; i < 8; ++i) EXPECT_EQ(y.data<float>()[i], 0);
    expect_close(floats_of(y), floats_of(in), w, kBF16, kF32, "huge");
  });
}

TEST(WeightMatvec, TinyInputsAndWhatIsNotFinite) {
  on_every_target([] {
    Stream stream(host_allocator());
    for (const auto& [name, w] : every_weight(4, 256)) {
      auto x = normal_values(3 * 256);
      for (size_t i = 0; i < 256; ++i) x[i] *= 1e-36f;
      x[256 + 70] = std::numeric_limits<float>::quiet_NaN();
      x[512 + 3] = std::numeric_limits<float>::infinity();
      Tensor y = Tensor::empty(host_allocator(), {3, 4}, kF32, "y");
      weight_matvec(stream, tensor_of(x, {3, 256}, kBF16), w, y);
      for (int i = 0; i < 4; ++i) EXPECT_LT(std::abs(y.data<float>()[i]), 1e-30f) << name;
      for (int i = 4; i < 8; ++i) EXPECT_TRUE(std::isnan(y.data<float>()[i])) << name;
      for (int i = 8; i < 12; ++i) EXPECT_FALSE(std::isfinite(y.data<float>()[i])) << name;
    }
  });
}

TEST(WeightMatvec, SameBytesForAnyNumberOfThreadsAndAnyBatch) {
  register_cpu_kernels();
  Stream stream(host_allocator());
  const int before = threads();
  for (const auto& [name, w] : every_weight(200, 512)) {
    for (const DType in : {kF32, kBF16}) {
      const Tensor x = tensor_of(normal_values(5 * 512, 3), {5, 512}, in);
      std::string first;
      for (const int n : {1, 2, 3}) {
        set_threads(n);
        Tensor y = Tensor::empty(host_allocator(), {5, 200}, kF32, "y");
        weight_matvec(stream, x, w, y);
        if (first.empty()) first = bytes_of(y);
        EXPECT_EQ(bytes_of(y), first) << name << " with " << n << " threads";
      }
      Tensor alone = Tensor::empty(host_allocator(), {1, 200}, kF32, "y");
      weight_matvec(stream, x.rows(2, 3), w, alone);
      EXPECT_EQ(bytes_of(alone), first.substr(2 * 800, 800)) << name << " alone";
    }
  }
  set_threads(before);
}

TEST(WeightMatvec, RefusesShapesThatDoNotFit) {
  register_cpu_kernels();
  Stream stream(host_allocator());
  const quant::Weight w = quant::dense_weight(tensor_of(normal_values(12), {3, 4}, kF32));
  const Tensor x = tensor_of(normal_values(5), {1, 5}, kF32);
  Tensor y = Tensor::empty(host_allocator(), {1, 3}, kF32, "y");
  try {
    weight_matvec(stream, x, w, y);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "[weight_matvec] x [1, 5] does not fit a weight [3, 4]");
  }
}

}  // namespace
}  // namespace nibble::backend
