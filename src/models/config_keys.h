// What families read from config.json, checked: the error names the key, its value and what it should be.
#pragma once
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "ops/ops.h"

namespace nibble::models {

inline constexpr const char* kConfig = "config.json";

// A whole number above zero.
int64_t positive(const Json& config, const char* key);
int64_t positive(const Json& config, const char* key, int64_t otherwise);
// The number of blocks: room is made for all before the first is looked for, so there is a most that is
// believed.
int64_t layer_count(const Json& config, const char* key);
// The epsilon of a norm.
float norm_epsilon(const Json& config, const char* key, double otherwise);
// "gelu", "gelu_new", "relu" …; Error with the known ones otherwise.
ops::Activation activation_named(const Json& config, const char* key, const char* otherwise);
// Width of a head when `width` is divided among `heads`.
int64_t divided_width(int64_t width, int64_t heads);

}  // namespace nibble::models
