#include "nn/rope_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <sstream>

#include "io/safetensors.h"

namespace nibble::nn {
namespace {

using testing::HasSubstr;

Tensor positions_of(const std::vector<int32_t>& p) {
  Tensor t = Tensor::empty(host_allocator(), {static_cast<int64_t>(p.size())}, kI32, "positions");
  std::copy(p.begin(), p.end(), t.data<int32_t>());
  return t;
}

// Angles reach 8000 radians: a frequency that differs by one f32 ulp (6e-8) turns them by up to 5e-4.
TEST(RopeTable, EqualsTransformers) {
  const std::string dir = std::string(NIBBLE_SOURCE_DIR) + "/tests/goldens/rope/";
  std::ifstream in(dir + "rope.json");
  std::stringstream text;
  text << in.rdbuf();
  const Json json = parse_json(text.str(), "rope.json");
  const auto positions = json["positions"].get<std::vector<int32_t>>();
  const auto golden = io::SafetensorsFile::open(dir + "rope.safetensors");
  for (const auto& [name, config] : json["cases"].items()) {
    const auto dims = config["head_dim"].get<int64_t>();
    RopeTable table(RopeSpec::from_config(config, dims, config["max_position_embeddings"].get<int64_t>()),
                    host_allocator());
    const Tensor& got = table.covering(positions_of(positions));
    const Tensor expected = golden.tensor(name);
    double worst = 0;
    for (size_t p = 0; p < positions.size(); ++p)
      for (int64_t i = 0; i < dims; ++i) {
        const double error = std::abs(double{got.data<float>()[positions[p] * dims + i]} -
                                      double{expected.data<float>()[static_cast<int64_t>(p) * dims + i]});
        EXPECT_LE(error, 1e-6 + 1.2e-7 * positions[p])
            << name << " position " << positions[p] << " dimension " << i;
        worst = std::max(worst, error);
      }
    RecordProperty(name, fmt::format("{:.1e}", worst));
  }
}

TEST(RopeTable, FactorsDivideEachFrequency) {
  const Json config = {{"rope_theta", 10000.0},
                       {"rope_scaling", {{"rope_type", "factors"}, {"factors", {1.0, 2.0, 8.0}}}}};
  Json plain = config;
  plain.erase("rope_scaling");
  const auto with = RopeSpec::from_config(config, 6, 64).frequencies(64),
             without = RopeSpec::from_config(plain, 6, 64).frequencies(64);
  EXPECT_EQ(with[0], without[0]);
  EXPECT_EQ(with[1], without[1] / 2);
  EXPECT_EQ(with[2], without[2] / 8);
}

// Dynamic scaling belongs to the length at hand: a short sequence after a long one turns as it always did.
TEST(RopeTable, DynamicGoesBack) {
  const Json config = {{"rope_scaling", {{"type", "dynamic"}, {"factor", 2.0}}}};
  RopeTable table(RopeSpec::from_config(config, 8, 32), host_allocator());
  const auto at = [&](int32_t longest) {
    const Tensor& t = table.covering(positions_of({0, longest}));
    return std::vector<float>(t.data<float>() + 5 * 8, t.data<float>() + 6 * 8);
  };
  const auto shorter = at(31), longer = at(100), again = at(10);
  EXPECT_NE(shorter, longer);
  EXPECT_EQ(shorter, again);
}

TEST(RopeTable, GrowsWithTheSequence) {
  RopeTable table(RopeSpec::from_config(Json{{"rope_theta", 10000.0}}, 4, 16), host_allocator());
  EXPECT_EQ(table.covering(positions_of({15})).size(0), 16);
  const float before = table.covering(positions_of({3})).data<float>()[3 * 4];
  EXPECT_GE(table.covering(positions_of({40})).size(0), 41);
  EXPECT_EQ(table.covering(positions_of({3})).data<float>()[3 * 4], before);
}

std::string refusal_of(const Json& scaling) {
  try {
    RopeSpec::from_config(Json{{"rope_scaling", scaling}}, 8, 64);
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}
TEST(RopeTable, BadScalingsAreNamed) {
  EXPECT_THAT(refusal_of({{"rope_type", "xpos"}}),
              HasSubstr("unknown rope_type \"xpos\"; known are default, linear"));
  EXPECT_THAT(refusal_of({{"type", "linear"}, {"factor", 0}}), HasSubstr("factor should be positive, got 0"));
  EXPECT_THAT(refusal_of({{"type", "linear"}, {"factor", "2"}}), HasSubstr("\"factor\" should be a number"));
  EXPECT_THAT(
      refusal_of({{"type", "llama3"}, {"factor", 8}, {"low_freq_factor", 4}, {"high_freq_factor", 4}}),
      HasSubstr("high_freq_factor should be above low_freq_factor"));
  EXPECT_THAT(refusal_of({{"type", "factors"}, {"factors", {1.0, 2.0}}}),
              HasSubstr("2 rope factors for 4 rotary pairs"));
  EXPECT_THAT(refusal_of({{"type", "factors"}, {"factors", {1.0, 2.0, 0.0, 1.0}}}),
              HasSubstr("should be positive, got 0"));
}

}  // namespace
}  // namespace nibble::nn
