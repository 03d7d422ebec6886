// What the tests of quantized weights share: instruction sets, guarded memory, weights of every format.
#pragma once
#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "backend/kernels/quantize.h"
#include "backend/stream.h"

namespace nibble::backend {

// Runs body once for each instruction set that this processor has, with that one alone allowed.
template <class Body>
void on_every_target(const Body& body) {
  register_cpu_kernels();
  constexpr int64_t kCompiled = HWY_SSSE3 | HWY_AVX2 | HWY_AVX3 | HWY_NEON;
  for (int64_t rest = hwy::SupportedTargets() & kCompiled; rest != 0; rest &= rest - 1) {
    const int64_t target = rest & -rest;
    hwy::SetSupportedTargetsForTest(target);
    SCOPED_TRACE(hwy::TargetName(target));
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
}

// A tensor with words on both sides that nobody may touch.
class Guarded {
 public:
  Guarded(const Shape& shape, DType dtype)
      : bytes_(static_cast<size_t>(shape.numel() * dtype_bytes(dtype)) + 2 * kGuard, std::byte{0xA5}) {
    tensor = Tensor::borrow(bytes_.data() + kGuard, shape, dtype, nullptr);
  }
  Tensor tensor;
  void expect_untouched(const std::string& what) const {
    for (size_t i = 0; i < kGuard; ++i) {
      ASSERT_EQ(bytes_[i], std::byte{0xA5}) << what << ": wrote before its output";
      ASSERT_EQ(bytes_[bytes_.size() - 1 - i], std::byte{0xA5}) << what << ": wrote past its output";
    }
  }

 private:
  static constexpr size_t kGuard = 64;
  std::vector<std::byte> bytes_;
};

inline std::vector<float> normal_values(int64_t n, uint32_t seed = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 0.05f);
  std::vector<float> v(static_cast<size_t>(n));
  for (float& x : v) x = normal(random);
  return v;
}

// Values as a tensor of its own of any float type.
inline Tensor tensor_of(const std::vector<float>& values, const Shape& shape, DType dtype) {
  Tensor t = Tensor::empty(host_allocator(), shape, dtype, "test");
  for (size_t i = 0; i < values.size(); ++i) {
    if (dtype == kF32) t.data<float>()[i] = values[i];
    if (dtype == kBF16) t.data<BFloat16>()[i] = to_bf16(values[i]);
    if (dtype == kF16) t.data<Float16>()[i] = to_f16(values[i]);
  }
  return t;
}

inline std::vector<float> floats_of(const Tensor& t) {
  std::vector<float> v(static_cast<size_t>(t.numel()));
  for (size_t i = 0; i < v.size(); ++i) {
    if (t.dtype() == kF32) v[i] = t.data<float>()[i];
    if (t.dtype() == kBF16) v[i] = to_float(t.data<BFloat16>()[i]);
    if (t.dtype() == kF16) v[i] = to_float(t.data<Float16>()[i]);
  }
  return v;
}

inline std::string bytes_of(const Tensor& t) {
  return {reinterpret_cast<const char*>(t.raw()), static_cast<size_t>(t.bytes())};
}

// A weight of GGUF blocks with random contents; scales are ordinary numbers.
inline quant::Weight random_ggml(GgmlType type, int64_t rows, int64_t cols, int64_t heads = 0) {
  const GgmlBlock block = ggml_block(static_cast<uint32_t>(type));
  const int64_t blocks = rows * cols / block.values;
  Tensor bytes = Tensor::empty(host_allocator(), {blocks * block.bytes}, kU8, "test");
  std::mt19937 random(static_cast<uint32_t>(type));
  for (int64_t i = 0; i < bytes.numel(); ++i) bytes.data<uint8_t>()[i] = static_cast<uint8_t>(random());
  std::vector<int64_t> halves = {0, 2};
  if (type == GgmlType::kQ4_0 || type == GgmlType::kQ5_0 || type == GgmlType::kQ8_0) halves = {0};
  if (type == GgmlType::kQ2_K) halves = {80, 82};
  if (type == GgmlType::kQ3_K) halves = {108};
  if (type == GgmlType::kQ6_K) halves = {208};
  std::uniform_real_distribution<float> small(-0.01f, 0.01f);
  for (int64_t b = 0; b < blocks; ++b)
    for (const int64_t at : halves) {
      const Float16 h = to_f16(small(random));
      std::memcpy(bytes.data<uint8_t>() + b * block.bytes + at, &h, 2);
    }
  return quant::ggml_weight(static_cast<uint32_t>(type), {rows, cols}, bytes, heads);
}

inline constexpr GgmlType kGgmlTypes[] = {GgmlType::kQ4_0, GgmlType::kQ4_1, GgmlType::kQ5_0, GgmlType::kQ5_1,
                                          GgmlType::kQ8_0, GgmlType::kQ2_K, GgmlType::kQ3_K, GgmlType::kQ4_K,
                                          GgmlType::kQ5_K, GgmlType::kQ6_K};

// Weights of every format and stored type.
inline std::vector<std::pair<std::string, quant::Weight>> every_weight(int64_t rows, int64_t cols) {
  const auto values = normal_values(rows * cols);
  std::vector<std::pair<std::string, quant::Weight>> all;
  for (const quant::Format& f : quant::formats()) {
    if (f.kind == quant::Kind::kGgml && rows * cols % ggml_block(f.ggml_type).values != 0) continue;
    if (!f.has_block_scales()) {
      all.emplace_back(f.name, quant::encode(f, values, {rows, cols}, 0, false));
      continue;
    }
    for (const int64_t block : {32, 64, 256})
      for (const bool twice : {false, true})
        all.emplace_back(std::string(f.name) + (twice ? " dq " : " ") + std::to_string(block),
                         quant::encode(f, values, {rows, cols}, block, twice));
  }
  for (const DType t : {kF32, kBF16, kF16})
    all.emplace_back(dtype_name(t), quant::dense_weight(tensor_of(values, {rows, cols}, t)));
  for (const GgmlType type : kGgmlTypes)
    if (cols % ggml_block(static_cast<uint32_t>(type)).values == 0)
      all.emplace_back(ggml_type_name(static_cast<uint32_t>(type)),
                       random_ggml(type, rows, cols, rows % 4 == 0 ? 2 : 0));
  return all;
}

}  // namespace nibble::backend
