// Encoders of the k-quants: what comes back, against bounds that follow from the format.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "base/error.h"
#include "quant/weight.h"

namespace nibble::quant {
namespace {

const char* const kNames[] = {"q2_k", "q3_k", "q4_k", "q5_k", "q6_k"};

std::vector<float> round_trip(const char* name, const std::vector<float>& v) {
  const Weight w = encode(find_format(name), v, {1, static_cast<int64_t>(v.size())}, 0, false);
  require_consistent(w, name);
  std::vector<float> out(v.size());
  decode_rows(w, 0, 1, out.data());
  return out;
}

std::vector<float> normal_values(size_t n, float scale, float mean = 0) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(mean, scale);
  std::vector<float> v(n);
  for (float& x : v) x = normal(random);
  return v;
}

// Half a step of the widest sub-block, and what rounding of scale and minimum (half of 1/63 or 1/15 of the
// largest each) adds over the sub-block's range.
TEST(KQuants, NoValueIsFurtherThanItsStepAllows) {
  const auto v = normal_values(256 * 64, 0.02f);
  float largest = 0;
  for (const float x : v) largest = std::max(largest, std::abs(x));
  const std::pair<const char*, float> bounds[] = {{"q2_k", 2 * largest / 3},
                                                  {"q3_k", largest / 3},
                                                  {"q4_k", 2 * largest / 15},
                                                  {"q5_k", 2 * largest / 31},
                                                  {"q6_k", largest / 31}};
  for (const auto& [name, bound] : bounds)
    EXPECT_LT(distortion(v, round_trip(name, v)).max_abs, bound) << name;
}

// The plain rule: the sub-block's own range in even steps, scale and minimum not rounded at all.
double plain_rule(const std::vector<float>& v, size_t sub, float top) {
  std::vector<float> out(v.size());
  for (size_t i = 0; i < v.size(); i += sub) {
    const auto [low, high] = std::minmax_element(v.begin() + static_cast<ptrdiff_t>(i),
                                                 v.begin() + static_cast<ptrdiff_t>(i + sub));
    const float min = std::min(*low, 0.0f), step = (*high - min) / top;
    for (size_t j = i; j < i + sub; ++j) out[j] = std::round((v[j] - min) / step) * step + min;
  }
  return distortion(v, out).rmse;
}

TEST(KQuants, TheSearchBeatsThePlainRule) {
  const auto v = normal_values(256 * 64, 0.02f);
  EXPECT_LT(distortion(v, round_trip("q2_k", v)).rmse, 0.95 * plain_rule(v, 16, 3));
  EXPECT_LT(distortion(v, round_trip("q4_k", v)).rmse, plain_rule(v, 32, 15));
}

TEST(KQuants, MoreBitsAreCloser) {
  for (const float mean : {0.0f, 0.5f, -0.5f}) {
    const auto v = normal_values(256 * 16, 0.3f, mean);
    const auto rmse = [&](const char* name) { return distortion(v, round_trip(name, v)).rmse; };
    // With a minimum of their own, and without.
    EXPECT_LT(rmse("q4_k"), 0.4 * rmse("q2_k")) << "around " << mean;
    EXPECT_LT(rmse("q5_k"), 0.6 * rmse("q4_k")) << "around " << mean;
    EXPECT_LT(rmse("q6_k"), 0.2 * rmse("q3_k")) << "around " << mean;
  }
}

// What ggml's own encoders reach on normal values, in dB: ggml_quantize_chunk of llama-cpp-python 0.3.36
// without an importance matrix, over a million values of deviation 0.02.
TEST(KQuants, AreNoWorseThanGgmls) {
  const auto v = normal_values(256 * 256, 0.02f);
  const std::pair<const char*, double> ggml[] = {
      {"q2_k", 10.56}, {"q3_k", 16.44}, {"q4_k", 22.94}, {"q5_k", 28.85}, {"q6_k", 35.02}};
  for (const auto& [name, snr] : ggml) EXPECT_GT(distortion(v, round_trip(name, v)).snr_db, snr) << name;
}

TEST(KQuants, WhatTheyCanHoldComesBack) {
  for (const char* name : kNames) {
    const std::vector<float> zeros(512, 0.0f);
    EXPECT_EQ(round_trip(name, zeros), zeros) << name;
    // Values that the format has already rounded once change little.
    const std::vector<float> v = normal_values(512, 1), once = round_trip(name, v);
    EXPECT_LT(distortion(once, round_trip(name, once)).relative, 0.5 * distortion(v, once).relative) << name;
  }
}

TEST(KQuants, ExtremesNeitherOverflowNorCrash) {
  for (const char* name : kNames)
    for (const float scale : {1e-38f, 1e-7f, 1e5f, 1e37f}) {
      const auto v = normal_values(256, scale);
      for (const float x : round_trip(name, v)) EXPECT_TRUE(std::isfinite(x)) << name << " " << scale;
    }
  std::vector<float> v = normal_values(512, 1);
  v[300] = std::nanf("");
  for (const char* name : kNames) {
    const auto out = round_trip(name, v);
    EXPECT_TRUE(std::isfinite(out[255])) << name;
    EXPECT_TRUE(std::isnan(out[256]) && std::isnan(out[511])) << name;
  }
}

TEST(KQuants, RowsMayStraddleBlocks) {
  const auto v = normal_values(8 * 96, 1);
  for (const char* name : kNames) {
    const Weight w = encode(find_format(name), v, {8, 96}, 0, false);
    std::vector<float> all(v.size()), row(96);
    decode_rows(w, 0, 8, all.data());
    decode_rows(w, 5, 6, row.data());
    EXPECT_TRUE(std::equal(row.begin(), row.end(), all.begin() + 5 * 96)) << name;
    EXPECT_EQ(all, round_trip(name, v)) << name;
  }
  try {
    encode(find_format("q4_k"), std::vector<float>(100), {1, 100}, 0, false);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(),
                 "[quantize] a weight [1, 100] does not fill blocks of 256 values, which q4_k consists of; "
                 "choose a format such as nf4");
  }
}

}  // namespace
}  // namespace nibble::quant
