// The safetensors container: 8-byte little-endian header length, JSON header, tensor bytes.
// Source: huggingface/safetensors README. Errors: Error{path} for a header that is too long, not JSON, or
// lies: offsets outside the file, overlapping or with gaps, sizes that do not match dtype × shape, duplicate
// names.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/mmap.h"
#include "tensor/tensor.h"

namespace nibble::io {

struct SafetensorsEntry {
  std::string name;
  std::string dtype;  // as stored: "F32", "BF16", "F8_E4M3" …
  Shape shape;        // at most 4 dimensions; more is an error
  std::span<const std::byte> data;
};

class SafetensorsFile {
 public:
  static SafetensorsFile open(const std::string& path);
  const SafetensorsEntry* find(std::string_view name) const;
  // A view. Errors: missing name; a dtype that Tensor does not have.
  Tensor tensor(std::string_view name) const;

  std::vector<SafetensorsEntry> entries;               // by offset
  std::map<std::string, size_t, std::less<>> by_name;  // → index into entries
  std::map<std::string, std::string> metadata;         // "__metadata__"
  std::shared_ptr<const MappedFile> map;
};

// Writes a file in one streaming pass: declare everything, then give the bytes in the same order; commit()
// renames.
class SafetensorsWriter {
 public:
  struct Declared {
    std::string name;
    DType dtype;
    Shape shape;
  };
  SafetensorsWriter(const std::string& path, const std::vector<Declared>& tensors,
                    const std::map<std::string, std::string>& metadata);
  // Bytes of the next declared tensor, whole or in pieces. Errors: more or fewer than declared.
  void write(std::span<const std::byte> bytes);
  void commit();

 private:
  AtomicFile file_;
  uint64_t expected_ = 0, written_ = 0;
  std::string path_;
};

void write_safetensors(const std::string& path, const std::vector<std::pair<std::string, Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata);

}  // namespace nibble::io
