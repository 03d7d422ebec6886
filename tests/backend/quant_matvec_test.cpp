// Products straight from the stored form, against the decoded values in double precision.
#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "backend/cpu/gemm_step.h"
#include "backend/cpu/row_groups.h"
#include "backend/kernels/matvec.h"
#include "base/parallel.h"
#include "tests/backend/quant_cases.h"

namespace nibble::backend {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

// The error of one product is bounded by the rounding of f32 sums, of a bf16 result, and of the 16-bit forms
// of inputs and levels, which are relative to the largest of a run (inputs: 64 at most; levels: the block's
// scale).
void expect_close(const std::vector<float>& got, const std::vector<float>& x, const quant::Weight& w,
                  DType in, DType out, const std::string& what, double of_sums = 1e-6) {
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
      double bound = magnitude * of_sums + (in == kBF16 ? coarse * 6e-5 : 0);
      if (out == kBF16) bound += std::abs(sum) * 0x1.0p-8;
      ASSERT_NEAR(got[static_cast<size_t>(t * rows + r)], sum, bound + 1e-30)
          << what << ", input " << t << ", output " << r;
    }
  }
}

void matvec(Stream& stream, const Tensor& x, const quant::Weight& w, const Tensor& y) {
  Matvec product{&w, y};
  weight_matvec(stream, x, {&product, 1});
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
            matvec(stream, x, w, y.tensor);
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
    matvec(stream, in, w, y);
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
      matvec(stream, tensor_of(x, {3, 256}, kBF16), w, y);
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
        matvec(stream, x, w, y);
        if (first.empty()) first = bytes_of(y);
        EXPECT_EQ(bytes_of(y), first) << name << " with " << n << " threads";
      }
      Tensor alone = Tensor::empty(host_allocator(), {1, 200}, kF32, "y");
      matvec(stream, x.rows(2, 3), w, alone);
      EXPECT_EQ(bytes_of(alone), first.substr(2 * 800, 800)) << name << " alone";
    }
  }
  set_threads(before);
}

// Of all formats, in an order in which some neighbours want their inputs alike and some do not.
TEST(WeightMatvec, SeveralWeightsAreEachWhatTheyAreAlone) {
  register_cpu_kernels();
  Stream stream(host_allocator());
  std::vector<std::pair<std::string, quant::Weight>> weights;
  for (const int64_t rows : {40, 7, 300})
    for (auto& entry : every_weight(rows, 512)) weights.push_back(std::move(entry));
  for (const DType in : {kF32, kBF16})
    for (const int64_t count : {1, 5}) {
      const Tensor x = tensor_of(normal_values(count * 512, 3), {count, 512}, in);
      std::vector<Matvec> together;
      for (const auto& [name, w] : weights)
        together.push_back({&w, Tensor::empty(host_allocator(), {count, w.rows()}, kBF16, "y")});
      weight_matvec(stream, x, together);
      for (size_t i = 0; i < weights.size(); ++i) {
        const Tensor alone = Tensor::empty(host_allocator(), together[i].y.shape(), kBF16, "y");
        matvec(stream, x, weights[i].second, alone);
        EXPECT_EQ(bytes_of(together[i].y), bytes_of(alone)) << weights[i].first << ", " << count;
      }
    }
}

TEST(WeightMatvec, RefusesShapesThatDoNotFit) {
  register_cpu_kernels();
  Stream stream(host_allocator());
  const quant::Weight w = quant::dense_weight(tensor_of(normal_values(12), {3, 4}, kF32));
  const Tensor x = tensor_of(normal_values(5), {1, 5}, kF32);
  Tensor y = Tensor::empty(host_allocator(), {1, 3}, kF32, "y");
  try {
    matvec(stream, x, w, y);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "[weight_matvec] x [1, 5] does not fit a weight [3, 4]");
  }
}

void rounded(Stream& stream, const Tensor& x, const quant::Weight& w, const Tensor& y) {
  RowGroups groups;
  group_rows(stream, w, groups);
  RoundedMatvec product{&w, &groups, y};
  rounded_product(stream, x, {&product, 1});
}

std::vector<std::pair<std::string, quant::Weight>> rounded_weights(int64_t rows, int64_t cols) {
  std::vector<std::pair<std::string, quant::Weight>> found;
  for (auto& entry : every_weight(rows, cols))
    if (has_rounded_product(entry.second)) found.push_back(std::move(entry));
  EXPECT_GE(found.size(), 4U);
  return found;
}

// Inputs that 8 bits hold: whole numbers up to 127, which each run reaches, times a power of two of the run.
std::vector<float> eight_bit_values(int64_t n) {
  std::vector<float> values = normal_values(n, 7);
  for (int64_t i = 0; i < n; ++i) {
    const auto at = static_cast<size_t>(i);
    values[at] = std::nearbyint(std::clamp(values[at] * 50, -127.0f, 127.0f));
    if (i % 32 == 11) values[at] = i % 64 == 11 ? 127 : -127;
    values[at] = std::ldexp(values[at], static_cast<int>(i / 32 % 9) - 6);
  }
  return values;
}

TEST(RoundedProduct, EqualsTheProductWithDecodedValuesWhereEightBitsHoldTheInputs) {
  on_every_target([] {
    Stream stream(host_allocator());
    for (const int64_t cols : {256, 1536})
      for (const int64_t rows : {8, 21})
        for (const auto& [name, w] : rounded_weights(rows, cols))
          for (const int64_t count : {1, 3, 4, 14, 21}) {
            const DType out = count % 2 == 0 ? kBF16 : kF32;
            const Tensor x = tensor_of(eight_bit_values(count * cols), {count, cols}, kBF16);
            Guarded y({count, rows}, out);
            rounded(stream, x, w, y.tensor);
            y.expect_untouched(name);
            // What the 16-bit forms add to the bound is not needed here.
            expect_close(floats_of(y.tensor), floats_of(x), w, kF32, out, name + " " + std::to_string(cols),
                         8e-6);
          }
  });
}

TEST(RoundedProduct, SameBytesWithAndWithoutTheDotOfBytes) {
  register_cpu_kernels();
  Stream stream(host_allocator());
  for (const auto& [name, w] : rounded_weights(21, 512))
    for (const int64_t count : {1, 3, 8, 16, 29}) {
      const Tensor x = tensor_of(normal_values(count * 512, 9), {count, 512}, kBF16);
      const Tensor with = Tensor::empty(host_allocator(), {count, 21}, kF32, "y"),
                   without = Tensor::empty(host_allocator(), {count, 21}, kF32, "y");
      rounded(stream, x, w, with);
      cpu::force_byte_step(cpu::Step::kEmulatedByte);
      rounded(stream, x, w, without);
      cpu::force_byte_step({});
      EXPECT_EQ(bytes_of(with), bytes_of(without)) << name << ", " << count << " inputs";
    }
}

// Each input is at most half of 1/127 of its run's largest away.
TEST(RoundedProduct, IsWithinTheRoundingOfItsInputs) {
  register_cpu_kernels();
  Stream stream(host_allocator());
  for (const auto& [name, w] : rounded_weights(12, 512)) {
    const Tensor x = tensor_of(normal_values(2 * 512, 5), {2, 512}, kBF16);
    Tensor y = Tensor::empty(host_allocator(), {2, 12}, kF32, "y");
    rounded(stream, x, w, y);
    std::vector<float> values(12 * 512);
    quant::decode_rows(w, 0, 12, values.data());
    const std::vector<float> inputs = floats_of(x);
    for (size_t t = 0; t < 2; ++t)
      for (size_t r = 0; r < 12; ++r) {
        double sum = 0, bound = 0;
        for (size_t begin = 0; begin < 512; begin += 32) {
          double most = 0, low = 0, high = 0;
          for (size_t i = begin; i < begin + 32; ++i) {
            const double a = values[r * 512 + i], b = inputs[t * 512 + i];
            sum += a * b;
            most = std::max(most, std::abs(b));
            low = std::min(low, a);
            high = std::max(high, a);
          }
          bound += 32 * (high - low) * most / 254;
        }
        ASSERT_NEAR(y.data<float>()[t * 12 + r], sum, bound) << name;
        // Not by chance: it is rounded.
        EXPECT_NE(y.data<float>()[t * 12 + r], static_cast<float>(sum)) << name;
      }
  }
}

TEST(RoundedProduct, SameBytesForAnyNumberOfThreadsAndAnyBatch) {
  const int before = threads();
  on_every_target([] {
    Stream stream(host_allocator());
    for (const auto& [name, w] : rounded_weights(203, 512)) {
      const Tensor x = tensor_of(normal_values(37 * 512, 3), {37, 512}, kBF16);
      std::string first;
      for (const int n : {1, 2, 3}) {
        set_threads(n);
        const Tensor y = Tensor::empty(host_allocator(), {37, 203}, kF32, "y");
        rounded(stream, x, w, y);
        if (first.empty()) first = bytes_of(y);
        EXPECT_EQ(bytes_of(y), first) << name << " with " << n << " threads";
      }
      for (const int64_t count : {1, 2, 6, 9, 16}) {
        const Tensor some = Tensor::empty(host_allocator(), {count, 203}, kF32, "y");
        rounded(stream, x.rows(20, 20 + count), w, some);
        EXPECT_EQ(bytes_of(some), first.substr(20 * 812, static_cast<size_t>(count) * 812))
            << name << ", " << count;
      }
    }
  });
  set_threads(before);
}

TEST(RoundedProduct, TinyInputsAndWhatIsNotFinite) {
  on_every_target([] {
    Stream stream(host_allocator());
    for (const auto& [name, w] : rounded_weights(4, 256)) {
      auto x = normal_values(4 * 256);
      for (size_t i = 0; i < 256; ++i) x[i] *= 1e-36f;
      x[256 + 70] = std::numeric_limits<float>::quiet_NaN();
      x[512 + 3] = std::numeric_limits<float>::infinity();
      const Tensor in = tensor_of(x, {4, 256}, kBF16);
      for (const int64_t count : {1, 4}) {
        const Tensor y = Tensor::empty(host_allocator(), {4, 4}, kF32, "y");
        for (int64_t t = 0; t < 4; t += count)
          rounded(stream, in.rows(t, t + count), w, y.rows(t, t + count));
        for (int i = 0; i < 4; ++i) EXPECT_LT(std::abs(y.data<float>()[i]), 1e-30f) << name;
        for (int i = 4; i < 8; ++i) EXPECT_TRUE(std::isnan(y.data<float>()[i])) << name;
        for (int i = 8; i < 12; ++i) EXPECT_FALSE(std::isfinite(y.data<float>()[i])) << name;
        for (int i = 12; i < 16; ++i) EXPECT_TRUE(std::isfinite(y.data<float>()[i])) << name;
      }
    }
  });
}

TEST(RoundedProduct, RefusesWhatItDoesNotHave) {
  register_cpu_kernels();
  Stream stream(host_allocator());
  const Tensor x = tensor_of(normal_values(256), {1, 256}, kBF16);
  const Tensor y = Tensor::empty(host_allocator(), {1, 4}, kF32, "y");
  const quant::Weight nf4 =
      quant::encode(quant::find_format("nf4"), normal_values(4 * 256), {4, 256}, 64, false);
  EXPECT_FALSE(has_rounded_product(nf4));
  RowGroups groups;
  EXPECT_THAT([&] { group_rows(stream, nf4, groups); },
              ThrowsMessage<Error>(HasSubstr("has no nf4 weight [4, 256]")));
  const quant::Weight w = random_ggml(GgmlType::kQ4_0, 4, 256, 0);
  RoundedMatvec product{&w, &groups, y};
  EXPECT_THAT(
      [&] {
        rounded_product(stream, x, {&product, 1});
      },
      ThrowsMessage<Error>(HasSubstr("the rows of the q4_0 weight [4, 256] are not in groups of")));
  EXPECT_THAT(
      [&] {
        rounded(stream, tensor_of(normal_values(512), {1, 512}, kBF16), w, y);
      },
      ThrowsMessage<Error>(HasSubstr("x [1, 512] does not fit a q4_0 weight [4, 256]")));
  EXPECT_THAT(
      [&] {
        rounded(stream, tensor_of(normal_values(256), {1, 256}, kF32), w, y);
      },
      ThrowsMessage<Error>(HasSubstr("expected bf16, got f32")));
}

}  // namespace
}  // namespace nibble::backend
