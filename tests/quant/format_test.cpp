// Properties that every format has, by shape of input, and the table of formats.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "base/error.h"
#include "quant/weight.h"
#include "tests/quant/golden.h"

namespace nibble::quant {
namespace {

std::vector<float> round_trip(const Weight& w) {
  std::vector<float> out(static_cast<size_t>(w.numel()));
  decode_rows(w, 0, w.rows(), out.data());
  return out;
}

std::vector<float> normal_values(size_t n, float scale = 1) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> v(n);
  for (float& x : v) x = normal(random) * scale;
  return v;
}

class EveryFormat : public testing::TestWithParam<const Format*> {
 protected:
  Weight encoded(const std::vector<float>& v, const Shape& shape) {
    return encode(*GetParam(), v, shape, GetParam()->has_block_scales() ? 64 : 0, false);
  }
  bool is_k_quant() const { return GetParam()->kind == Kind::kGgml; }
};

TEST_P(EveryFormat, LevelsTimesScaleComeBackExactly) {
  if (!GetParam()->has_block_scales()) return;  // there is no code book
  const Codebook4& book = *GetParam()->codebook;
  std::vector<float> v;
  for (int repeat = 0; repeat < 8; ++repeat)
    for (size_t i = 0; i < 16; ++i)
      v.push_back(book.values[i % (size_t{1} << static_cast<int>(GetParam()->bits))] * 4.0f);
  expect_same_floats(
      round_trip(encoded(v, {2, 64})),
      [&] {
        auto want = v;
        for (float& x : want) x = x == 0 ? 0.0f : x;  // the spare code of zero is never made
        return want;
      }(),
      GetParam()->name);
}

TEST_P(EveryFormat, FlatBlocksAreExact) {
  if (is_k_quant()) return;                 // their scales are rounded
  const std::vector<float> v(128, 0.375f);  // a level of every format: 1 times the scale
  expect_same_floats(round_trip(encoded(v, {2, 64})), v, GetParam()->name);
}

TEST_P(EveryFormat, ARampTakesTheNearestLevel) {
  if (is_k_quant()) return;  // sub-blocks have levels of their own
  std::vector<float> v(64);
  for (size_t i = 0; i < 64; ++i) v[i] = -1.0f + static_cast<float>(i) * 2.0f / 63.0f;
  const auto got = round_trip(encoded(v, {1, 64}));
  for (size_t i = 0; i < 64; ++i) {
    EXPECT_GE(got[i], got[i == 0 ? 0 : i - 1]);
    float nearest = std::abs(got[i] - v[i]);
    if (GetParam()->has_block_scales())
      for (const float level : GetParam()->codebook->values)
        nearest = std::min(nearest, std::abs(level - v[i]));
    EXPECT_NEAR(std::abs(got[i] - v[i]), nearest, 1e-6f);
  }
}

TEST_P(EveryFormat, NormalValuesKeepTheExpectedPrecision) {
  const auto v = normal_values(64 * 512, 0.02f);
  const Distortion d = distortion(v, round_trip(encoded(v, {512, 64})));
  const std::map<std::string, double> snr = {
      {"nf4", 20.7},   {"fp4", 18.3},   {"e2m1", 19.5},  {"e3m0", 14.5}, {"int4", 19.3},
      {"af4", 20.4},   {"int8", 44.5},  {"nf3", 14.1},   {"nf2", 5.0},   {"q2_k", 11.67},
      {"q3_k", 16.82}, {"q4_k", 22.96}, {"q5_k", 29.08}, {"q6_k", 35.13}};
  EXPECT_NEAR(d.snr_db, snr.at(GetParam()->name), 0.15) << GetParam()->name;
  EXPECT_NEAR(d.relative, std::pow(10, -d.snr_db / 20), 1e-9);
}

TEST_P(EveryFormat, ShortLastBlockAndOddCount) {
  if (is_k_quant()) return;              // whole blocks alone
  const auto v = normal_values(3 * 43);  // 129 values: two blocks and one value more
  const Weight w = encoded(v, {3, 43});
  require_consistent(w, "test");
  const auto all = round_trip(w);
  EXPECT_LT(distortion(v, all).relative, GetParam()->bits == 2 ? 0.6 : 0.25);
  std::vector<float> row(43);
  decode_rows(w, 2, 3, row.data());
  expect_same_floats(row, {all.begin() + 86, all.end()}, "last row alone");
}

INSTANTIATE_TEST_SUITE_P(Quant, EveryFormat, testing::ValuesIn([] {
                           std::vector<const Format*> all;
                           for (const Format& f : formats()) all.push_back(&f);
                           return all;
                         }()),
                         [](const auto& p) { return std::string(p.param->name); });

TEST(Codebook, ThresholdsFollowTheLevels) {
  for (const Format& f : formats()) {
    if (!f.has_block_scales()) continue;
    const Codebook4& b = *f.codebook;
    for (size_t i = 0; i + 1 < 16; ++i) EXPECT_LE(b.values[b.order[i]], b.values[b.order[i + 1]]) << f.name;
    for (size_t i = 0; i + 1 < 15; ++i) EXPECT_LE(b.thresholds[i], b.thresholds[i + 1]) << f.name;
    EXPECT_EQ(b.values[b.zero_code], 0) << f.name;
    EXPECT_EQ(b.values[b.order[0]], -1) << f.name;
    EXPECT_EQ(b.values[b.order[15]], 1) << f.name;
  }
}

TEST(LowBits, CodesFillTheirBytes) {
  const auto v = normal_values(100);  // a block of 64 and a short one of 36
  for (const auto& [name, bytes] : {std::pair{"nf3", 38}, std::pair{"nf2", 25}}) {
    const Weight w = encode(find_format(name), v, {1, 100}, 64, false);
    EXPECT_EQ(w.codes.numel(), bytes) << name;  // ceil(100 * bits / 8)
    require_consistent(w, "test");
  }
  // By hand: with scale 1 codes of nf3 are 0 7 3 7 0 3 7 0, three bits each from the lowest up.
  std::vector<float> block(32, 0.0f);
  const float first[] = {-1, 1, 0, 1, -1, 0, 1, -1};
  std::copy(std::begin(first), std::end(first), block.begin());
  const Weight nf3 = encode(find_format("nf3"), block, {1, 32}, 32, false);
  unsigned word = 0;
  for (const unsigned code : {0u, 7u, 3u, 7u, 0u, 3u, 7u, 0u}) word = word >> 3 | code << 21;
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(nf3.codes.data<uint8_t>()[i], word >> (8 * i) & 255);
  const Weight nf2 = encode(find_format("nf2"), block, {1, 32}, 32, false);
  EXPECT_EQ(nf2.codes.data<uint8_t>()[0], 0 | 3 << 2 | 1 << 4 | 3 << 6);
  EXPECT_EQ(nf2.codes.data<uint8_t>()[1], 0 | 1 << 2 | 3 << 4 | 0 << 6);
}

TEST(DoubleQuantization, CostsOneEighthOfABitAndLittlePrecision) {
  const auto v = normal_values(64 * 1024);
  const Weight plain = encode(find_format("nf4"), v, {1024, 64}, 64, false);
  const Weight twice = encode(find_format("nf4"), v, {1024, 64}, 64, true);
  require_consistent(twice, "test");
  EXPECT_EQ(plain.stored_bytes(), 1024 * 32 + 1024 * 4);
  EXPECT_EQ(twice.stored_bytes(), 1024 * 32 + 1024 + 4 * 4 + 256 * 4 + 4);
  EXPECT_EQ(twice.describe(), "nf4 + double quantization, block 64");
  EXPECT_LT(distortion(round_trip(plain), round_trip(twice)).relative, 0.02);
}

TEST(DoubleQuantization, EqualScalesNeedNoSecondLevel) {
  const std::vector<float> v(64 * 300, 0.5f);
  const Weight w = encode(find_format("nf4"), v, {300, 64}, 64, true);
  expect_same_floats(round_trip(w), v, "equal scales");
}

TEST(Distortion, IsZeroForEqualValuesAndCountsWhatDiffers) {
  const std::vector<float> a = {3, 4}, b = {3, 3};
  EXPECT_EQ(distortion(a, a).rmse, 0);
  const Distortion d = distortion(a, b);
  EXPECT_DOUBLE_EQ(d.max_abs, 1);
  EXPECT_DOUBLE_EQ(d.rmse, std::sqrt(0.5));
  EXPECT_DOUBLE_EQ(d.relative, 0.2);
  EXPECT_DOUBLE_EQ(d.snr_db, 10 * std::log10(25.0));
}

std::string usage_message(const std::function<void()>& f) {
  try {
    f();
  } catch (const UsageError& e) {
    return e.what();
  }
  return "no error";
}

TEST(Quantize, WordsOfTheCommandLine) {
  EXPECT_EQ(parse_quantize("nf4", true, 64).name(), "nf4");
  EXPECT_EQ(parse_quantize("stored", true, 64).name(), "stored");
  EXPECT_FALSE(parse_quantize("none", true, 64).double_quant);
  EXPECT_EQ(
      usage_message([] { parse_quantize("nf5", false, 64); }),
      "[quantize] unknown format 'nf5'; expected one of nf4, fp4, e2m1, e3m0, int4, af4, nf3, nf2, int8, "
      "q2_k, q3_k, q4_k, q5_k, q6_k, stored, none; did you mean "
      "'nf4'?");
  EXPECT_EQ(usage_message([] { parse_quantize("nf4", false, 100); }),
            "[quantize] block size 100 is none of 32, 64, 128, 256, 512, 1024, 2048, 4096");
  EXPECT_EQ(usage_message([] { parse_quantize("af4", false, 128); }),
            "[quantize] af4 is defined for block size 64 only, got 128");
  EXPECT_NE(usage_message([] { parse_quantize("int8", true, 64); }).find("one scale a row"),
            std::string::npos);
  EXPECT_NE(usage_message([] { parse_quantize("q4_k", true, 64); }).find("no block scales to quantize again"),
            std::string::npos);
  EXPECT_NE(usage_message([] { find_format("none"); }).find("expected one of nf4"), std::string::npos);
}

TEST(Weight, PartsThatDoNotFitAreNamed) {
  Weight w = encode(find_format("nf4"), normal_values(128), {2, 64}, 64, true);
  w.nested_absmax = {};
  try {
    require_consistent(w, "model.safetensors");
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_STREQ(
        e.what(),
        "[model.safetensors] nested_absmax of a nf4 + double quantization, block 64 weight [2, 64] should be "
        "1 f32, got none");
  }
}

}  // namespace
}  // namespace nibble::quant
