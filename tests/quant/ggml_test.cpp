// GGUF blocks against the gguf package's decoders: equal bits.
#include <gtest/gtest.h>

#include "base/error.h"
#include "quant/weight.h"
#include "tests/quant/golden.h"

namespace nibble::quant {
namespace {

TEST(Ggml, EveryTypeDecodesToTheReferenceValues) {
  const Goldens goldens("gguf.bin");
  const std::pair<const char*, GgmlType> types[] = {
      {"F32", GgmlType::kF32},   {"F16", GgmlType::kF16},   {"BF16", GgmlType::kBF16},
      {"Q4_0", GgmlType::kQ4_0}, {"Q4_1", GgmlType::kQ4_1}, {"Q5_0", GgmlType::kQ5_0},
      {"Q5_1", GgmlType::kQ5_1}, {"Q8_0", GgmlType::kQ8_0}, {"Q2_K", GgmlType::kQ2_K},
      {"Q3_K", GgmlType::kQ3_K}, {"Q4_K", GgmlType::kQ4_K}, {"Q5_K", GgmlType::kQ5_K},
      {"Q6_K", GgmlType::kQ6_K}};
  for (const auto& [name, type] : types) {
    const auto bytes = goldens.get<uint8_t>(std::string(name) + "/blocks");
    const auto want = goldens.get<float>(std::string(name) + "/decoded");
    ASSERT_FALSE(want.empty());
    EXPECT_TRUE(ggml_decodable(static_cast<uint32_t>(type)));
    std::vector<float> got(want.size() + 1, 12345.0f);
    decode_ggml_row(static_cast<uint32_t>(type), reinterpret_cast<const std::byte*>(bytes.data()),
                    static_cast<int64_t>(want.size()), got.data());
    EXPECT_EQ(got.back(), 12345.0f) << name << " wrote past its end";
    got.pop_back();
    expect_same_floats(got, want, name);
  }
}

TEST(Ggml, RowsOfInterleavedHeadsComeBackInCheckpointOrder) {
  const auto stored = Goldens("gguf.bin").get<float>("permuted");
  const Tensor blocks = Tensor::borrow(stored.data(), {24 * 2 * 4}, kU8, nullptr);
  const Weight w = ggml_weight(static_cast<uint32_t>(GgmlType::kF32), {24, 2}, blocks, 3);
  std::vector<float> got(48);
  decode_rows(w, 0, 24, got.data());
  for (size_t i = 0; i < 48; ++i) EXPECT_EQ(got[i], static_cast<float>(i));
  std::vector<float> part(6);
  decode_rows(w, 9, 12, part.data());
  for (size_t i = 0; i < 6; ++i) EXPECT_EQ(part[i], static_cast<float>(18 + i));
}

std::string message(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(Ggml, RefusesWhatDoesNotFit) {
  const std::vector<uint8_t> bytes(200);
  const auto blocks = [&](int64_t n) { return Tensor::borrow(bytes.data(), {n}, kU8, nullptr); };
  const auto q4 = static_cast<uint32_t>(GgmlType::kQ4_0);
  EXPECT_EQ(message([&] {
              ggml_weight(q4, {2, 48}, blocks(54));
            }),
            "[gguf] q4_0 [2, 48] does not consist of whole blocks of 32 values");
  EXPECT_EQ(message([&] {
              ggml_weight(q4, {2, 64}, blocks(70));
            }),
            "[gguf] q4_0 [2, 64] takes 72 bytes, got 70");
  EXPECT_EQ(message([&] {
              ggml_weight(q4, {2, 64}, blocks(72), 2);
            }),
            "[gguf] the rows of [2, 64] cannot be those of 2 heads with rotary pairs");
  EXPECT_NE(message([&] {
              ggml_weight(static_cast<uint32_t>(GgmlType::kI32), {2, 1}, blocks(8));
            }).find("cannot be decoded"),
            std::string::npos);
  EXPECT_FALSE(ggml_decodable(16));
}

}  // namespace
}  // namespace nibble::quant
