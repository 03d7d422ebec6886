// What the tests of this layer share: a directory that vanishes, files made by hand, messages of errors.
#pragma once
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "quant/weight.h"
#include "tensor/tensor.h"

namespace nibble::io {

class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "nibble_io_XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline std::vector<float> values_of(const quant::Weight& w) {
  std::vector<float> v(static_cast<size_t>(w.numel()));
  quant::decode_rows(w, 0, w.rows(), v.data());
  return v;
}

inline void put_file(const std::string& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}
inline std::string get_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

// A safetensors file with any header.
inline std::string safetensors_bytes(const std::string& header, const std::string& body) {
  const uint64_t n = header.size();
  std::string out(8, '\0');
  std::memcpy(out.data(), &n, 8);
  return out + header + body;
}

inline Tensor f32_tensor(const Shape& shape, const std::vector<float>& values) {
  Tensor t = Tensor::empty(host_allocator(), shape, kF32, "test");
  std::memcpy(t.raw(), values.data(), values.size() * sizeof(float));
  return t;
}
inline std::vector<float> floats(const Tensor& t) { return {t.data<float>(), t.data<float>() + t.numel()}; }

// The message of the Error that f throws, or "no error".
template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

#define EXPECT_ERROR(statement, part) \
  EXPECT_THAT(error_of([&] { (void)(statement); }), ::testing::HasSubstr(part))

inline std::string golden(const std::string& name) {
  return std::string(NIBBLE_SOURCE_DIR) + "/tests/goldens/" + name;
}

}  // namespace nibble::io
