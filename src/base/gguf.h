// The GGUF container (v2 and v3, little endian): key-value metadata and a directory of tensors. What keys and
// tensors mean is for others: io/ turns them into weights, text/ into a tokenizer. Source: ggml's
// docs/gguf.md. Ownership: the file stays mapped as long as a GgufFile (or a copy of `map`) lives. Errors:
// Error{path} for a wrong magic, unsupported version, lengths or offsets outside the file, duplicate names,
// strings that are not UTF-8 where a key or tensor name is expected, more than 64 levels of arrays.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/mmap.h"

namespace nibble {

// ggml's type numbers, as stored.
enum class GgmlType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ8_1 = 9,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kQ8_K = 15,
  kI8 = 24,
  kI16 = 25,
  kI32 = 26,
  kI64 = 27,
  kF64 = 28,
  kBF16 = 30,
};

struct GgufArray;
using GgufValue =
    std::variant<uint64_t, int64_t, double, bool, std::string, std::shared_ptr<const GgufArray>>;

// A homogeneous array; exactly one member is filled. Arrays of arrays are flattened (no known key has one).
struct GgufArray {
  std::vector<int64_t> integers;  // every integer width; bool as 0/1
  std::vector<double> numbers;    // f32, f64
  std::vector<std::string> strings;
};

struct GgufTensor {
  std::string name;
  std::vector<int64_t> dims;        // ggml order: dims[0] is the fastest-varying one (columns)
  uint32_t type = 0;                // a GgmlType, or a number this version does not know
  std::span<const std::byte> data;  // empty when the type is unknown
};

class GgufFile {
 public:
  static GgufFile open(const std::string& path);

  const std::string& path() const { return map->path(); }
  const GgufValue* find(std::string_view key) const;
  // Typed look-ups; the second form gives `otherwise` for a missing key. Errors name key and type.
  int64_t integer(std::string_view key) const;
  int64_t integer(std::string_view key, int64_t otherwise) const;
  double number(std::string_view key, double otherwise) const;
  bool boolean(std::string_view key, bool otherwise) const;
  std::string string(std::string_view key) const;
  std::string string(std::string_view key, std::string_view otherwise) const;
  const GgufArray& array(std::string_view key) const;

  std::map<std::string, GgufValue, std::less<>> metadata;
  std::vector<GgufTensor> tensors;
  std::shared_ptr<const MappedFile> map;
};

// Bytes of one block and values in it; {0, 0} for a type that is not known.
struct GgmlBlock {
  int64_t bytes, values;
};
GgmlBlock ggml_block(uint32_t type);
const char* ggml_type_name(uint32_t type);

}  // namespace nibble
