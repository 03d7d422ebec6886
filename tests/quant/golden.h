// Reads what tests/goldens/make_quant.py wrote: named arrays.
#pragma once
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace nibble {

class Goldens {
 public:
  explicit Goldens(const std::string& file) {
    std::ifstream in(std::string(NIBBLE_SOURCE_DIR) + "/tests/goldens/quant/" + file, std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(in)), {});
    EXPECT_FALSE(bytes.empty()) << file;
    const auto word = [&](size_t at) {
      uint32_t v = 0;
      std::memcpy(&v, bytes.data() + at, 4);
      return v;
    };
    for (size_t at = 0; at < bytes.size();) {
      const size_t name_size = word(at), width = word(at + 4 + name_size), count = word(at + 8 + name_size);
      arrays_[bytes.substr(at + 4, name_size)] = bytes.substr(at + 12 + name_size, width * count);
      at += 12 + name_size + width * count;
    }
  }
  template <class T>
  std::vector<T> get(const std::string& name) const {
    const auto found = arrays_.find(name);
    EXPECT_NE(found, arrays_.end()) << name;
    if (found == arrays_.end()) return {};
    std::vector<T> values(found->second.size() / sizeof(T));
    std::memcpy(values.data(), found->second.data(), values.size() * sizeof(T));
    return values;
  }
  // Names ending in `suffix`, without it.
  std::vector<std::string> cases(const std::string& suffix) const {
    std::vector<std::string> names;
    for (const auto& [name, bytes] : arrays_)
      if (name.size() > suffix.size() && name.ends_with(suffix))
        names.push_back(name.substr(0, name.size() - suffix.size()));
    return names;
  }

 private:
  std::map<std::string, std::string> arrays_;
};

// "bfloat16" as bitsandbytes' goldens name it.
inline DType golden_dtype(const std::string& name) {
  return name == "float32" ? kF32 : name == "float16" ? kF16 : kBF16;
}

// Values of any float type as f32.
inline std::vector<float> widened(const Goldens& goldens, const std::string& name, DType dtype) {
  if (dtype == kF32) return goldens.get<float>(name);
  std::vector<float> out;
  for (const uint16_t h : goldens.get<uint16_t>(name))
    out.push_back(dtype == kF16 ? to_float(Float16{h}) : to_float(BFloat16{h}));
  return out;
}

// Equal bits, where every NaN equals every other.
inline void expect_same_floats(const std::vector<float>& got, const std::vector<float>& want,
                               const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::bit_cast<uint32_t>(got[i]) != std::bit_cast<uint32_t>(want[i]) &&
        !(got[i] != got[i] && want[i] != want[i])) {
      ADD_FAILURE() << what << ": value " << i << " is " << got[i] << ", expected " << want[i];
      return;
    }
  }
}

}  // namespace nibble
