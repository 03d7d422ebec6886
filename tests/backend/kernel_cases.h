// What the tests of the CPU's training kernels share.
#pragma once
#include <functional>

#include "backend/cpu/kernels.h"
#include "base/parallel.h"
#include "tests/backend/quant_cases.h"

namespace nibble::backend {

inline constexpr DType kFloats[] = {kF32, kBF16};

// Values around ±3, the same for the same seed.
inline Tensor random_tensor(const Shape& shape, DType dtype, uint32_t seed) {
  auto v = normal_values(shape.numel(), seed);
  for (float& x : v) x *= 40;
  return tensor_of(v, shape, dtype);
}

// A guarded tensor that holds those values: outputs are never handed over empty, so that what is not written
// shows.
inline Guarded guarded(const Tensor& from) {
  Guarded g(from.shape(), from.dtype());
  std::memcpy(g.tensor.raw(), from.raw(), static_cast<size_t>(from.bytes()));
  return g;
}
inline Guarded guarded(const Shape& shape, DType dtype, uint32_t seed) {
  return guarded(random_tensor(shape, dtype, seed));
}

inline float round_to(float x, DType dtype) { return dtype == kBF16 ? to_float(to_bf16(x)) : x; }

// Same: result() must be the same bytes on every instruction set, or only for every number of threads on
// each.
enum class Same { kEverywhere, kThreads };
inline void expect_same(Same same, const std::function<std::string()>& result) {
  std::string first;
  on_every_target([&] {
    if (same == Same::kThreads) first.clear();
    for (const int count : {1, 2, 3}) {
      set_threads(count);
      const std::string bytes = result();
      if (first.empty()) first = bytes;
      EXPECT_TRUE(bytes == first) << count << " threads give other bytes";
    }
  });
  set_threads(0);
}

// |got - want| within `relative` of the largest |want|, plus half a step of bf16 where the output has that.
inline void expect_near(const Tensor& got, const std::vector<double>& want, double relative,
                        const std::string& what) {
  const auto values = floats_of(got);
  ASSERT_EQ(values.size(), want.size()) << what;
  double largest = 1e-30;
  for (const double w : want) largest = std::max(largest, std::abs(w));
  for (size_t i = 0; i < want.size(); ++i) {
    const double allowed = relative * largest + (got.dtype() == kBF16 ? std::abs(want[i]) / 250 : 0);
    ASSERT_LE(std::abs(values[i] - want[i]), allowed)
        << what << ", element " << i << ": " << values[i] << " for " << want[i];
  }
}

inline std::vector<double> doubles_of(const Tensor& t) {
  const auto v = floats_of(t);
  return {v.begin(), v.end()};
}

}  // namespace nibble::backend
