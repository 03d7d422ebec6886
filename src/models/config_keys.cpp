#include "models/config_keys.h"

namespace nibble::models {

int64_t positive(const Json& config, const char* key) {
  const auto n = json_get<int64_t>(config, key, kConfig);
  require(n > 0 && n < int64_t{1} << 31, kConfig, "\"{}\" should be positive, got {}", key, n);
  return n;
}

int64_t positive(const Json& config, const char* key, int64_t otherwise) {
  return config.contains(key) && !config[key].is_null() ? positive(config, key) : otherwise;
}

int64_t layer_count(const Json& config, const char* key) {
  constexpr int64_t kMost = 10'000;
  const int64_t n = positive(config, key);
  require(n <= kMost, kConfig, "\"{}\" is {}; at most {} are taken for real", key, n, kMost);
  return n;
}

float norm_epsilon(const Json& config, const char* key, double otherwise) {
  const auto eps = static_cast<float>(json_get<double>(config, key, otherwise, kConfig));
  require(eps > 0 && eps < 1, kConfig, "{} should be a small positive number, got {}", key, eps);
  return eps;
}

ops::Activation activation_named(const Json& config, const char* key, const char* otherwise) {
  using ops::Activation;
  struct Row {
    const char* name;
    Activation activation;
  };
  constexpr Row kKnown[] = {{"relu", Activation::kRelu},
                            {"gelu", Activation::kGelu},
                            {"gelu_new", Activation::kGeluTanh},
                            {"gelu_fast", Activation::kGeluTanh},
                            {"gelu_pytorch_tanh", Activation::kGeluTanh},
                            {"silu", Activation::kSilu},
                            {"swish", Activation::kSilu}};
  const auto name = json_get<std::string>(config, key, otherwise, kConfig);
  std::string known;
  for (const Row& row : kKnown) {
    if (name == row.name) return row.activation;
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  fail(kConfig, "{} \"{}\" is not supported; known are {}", key, name, known);
}

int64_t divided_width(int64_t width, int64_t heads) {
  require(width % heads == 0, kConfig, "hidden_size {} cannot be divided into {} heads", width, heads);
  return width / heads;
}

}  // namespace nibble::models
