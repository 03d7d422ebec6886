// The JSON header of a safetensors file, read without building a document: linear in its length, whatever it
// holds.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/shape.h"

namespace nibble::io {

struct SafetensorsHeader {
  struct Item {
    std::string name, dtype;
    Shape shape;
    uint64_t begin = 0, end = 0;  // bytes behind the header
  };
  std::vector<Item> items;  // in the header's order
  std::map<std::string, std::string> metadata;
};

// Errors: Error{path} for text that is not such a header. Offsets and sizes are the caller's to check.
SafetensorsHeader parse_safetensors_header(std::string_view json, const std::string& path);

}  // namespace nibble::io
