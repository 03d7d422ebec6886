#include "io/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <optional>
#include <unordered_set>

#include "base/json.h"
#include "base/text.h"
#include "io/safetensors_header.h"

namespace nibble::io {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors values are used as they are stored");

constexpr uint64_t kMaxHeader = 100'000'000;  // the limit of the reference implementation

struct StoredType {
  const char* name;
  uint64_t bits;
  std::optional<DType> dtype;  // nullopt: known, but Tensor has no such type
};
constexpr std::array kTypes = {
    StoredType{"F32", 32, kF32},
    StoredType{"F16", 16, kF16},
    StoredType{"BF16", 16, kBF16},
    StoredType{"I64", 64, kI64},
    StoredType{"I32", 32, kI32},
    StoredType{"U8", 8, kU8},
    StoredType{"I8", 8, kI8},
    StoredType{"F64", 64, std::nullopt},
    StoredType{"I16", 16, std::nullopt},
    StoredType{"U16", 16, std::nullopt},
    StoredType{"U32", 32, std::nullopt},
    StoredType{"U64", 64, std::nullopt},
    StoredType{"BOOL", 8, std::nullopt},
    StoredType{"F8_E4M3", 8, std::nullopt},
    StoredType{"F8_E5M2", 8, std::nullopt},
    StoredType{"F8_E8M0", 8, std::nullopt},
    StoredType{"F4", 4, std::nullopt},
    StoredType{"C64", 64, std::nullopt},
};

const StoredType* find_type(std::string_view name) {
  for (const StoredType& t : kTypes)
    if (name == t.name) return &t;
  return nullptr;
}

const char* stored_name(DType dtype) {
  for (const StoredType& t : kTypes)
    if (t.dtype == dtype) return t.name;
  return "?";
}

// Bytes of dtype × shape; nullopt when that overflows or is no whole number of bytes.
std::optional<uint64_t> bytes_of(const StoredType& type, const Shape& shape) {
  uint64_t bits = type.bits;
  for (int i = 0; i < shape.rank(); ++i)
    if (__builtin_mul_overflow(bits, static_cast<uint64_t>(shape[i]), &bits)) return std::nullopt;
  if (bits % 8 != 0 || bits / 8 > static_cast<uint64_t>(std::numeric_limits<int64_t>::max() / 8))
    return std::nullopt;
  return bits / 8;
}

uint64_t header_length(std::span<const std::byte> bytes, const std::string& path) {
  require(bytes.size() >= 8, path, "is {} bytes long, too short for a safetensors file; is it cut off?",
          bytes.size());
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  require(length <= kMaxHeader, path,
          "claims a header of {} bytes, more than the {} allowed; is this a safetensors file?", length,
          kMaxHeader);
  require(length <= bytes.size() - 8, path,
          "claims a header of {} bytes but has {} behind the length; is the file cut off?", length,
          bytes.size() - 8);
  return length;
}

void check_size(const SafetensorsEntry& e, const std::string& path) {
  // Not overflow-checked by Shape itself, so a type that is not known is measured in bytes here.
  const StoredType* type = find_type(e.dtype);
  const auto expected = bytes_of(type ? *type : StoredType{"", 8, std::nullopt}, e.shape);
  require(expected.has_value(), path, "tensor \"{}\" claims a size that cannot be: {} {}", e.name, e.dtype,
          e.shape.str());
  require(type == nullptr || *expected == e.data.size(), path,
          "tensor \"{}\" is {} {}, which needs {} bytes, but its data_offsets span {}", e.name, e.dtype,
          e.shape.str(), *expected, e.data.size());
}

}  // namespace

SafetensorsFile SafetensorsFile::open(const std::string& path) {
  SafetensorsFile file;
  file.map = MappedFile::open(path);
  const auto bytes = file.map->bytes();
  const uint64_t length = header_length(bytes, path);
  SafetensorsHeader header =
      parse_safetensors_header({reinterpret_cast<const char*>(bytes.data()) + 8, length}, path);
  file.metadata = std::move(header.metadata);

  const auto body = bytes.subspan(8 + length);
  std::stable_sort(header.items.begin(), header.items.end(), [](const auto& a, const auto& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t at = 0;
  for (SafetensorsHeader::Item& item : header.items) {
    require(item.begin <= item.end && item.end <= body.size(), path,
            "tensor \"{}\" lies at bytes {} to {} of {}: outside the file; is it cut off?", item.name,
            item.begin, item.end, body.size());
    require(item.begin == at, path,
            "tensor \"{}\" begins at byte {} but the one before it ends at {}: the header lies", item.name,
            item.begin, at);
    at = item.end;
    SafetensorsEntry entry{std::move(item.name), std::move(item.dtype), item.shape,
                           body.subspan(item.begin, item.end - item.begin)};
    check_size(entry, path);
    file.entries.push_back(std::move(entry));
  }
  require(at == body.size(), path, "has {} bytes behind its last tensor; is it damaged?", body.size() - at);
  for (size_t i = 0; i < file.entries.size(); ++i)
    require(file.by_name.emplace(file.entries[i].name, i).second, path, "has two tensors named \"{}\"",
            file.entries[i].name);
  return file;
}

const SafetensorsEntry* SafetensorsFile::find(std::string_view name) const {
  const auto it = by_name.find(name);
  return it == by_name.end() ? nullptr : &entries[it->second];
}

Tensor SafetensorsFile::tensor(std::string_view name) const {
  const SafetensorsEntry* e = find(name);
  if (e == nullptr) {
    std::vector<std::string> names;
    for (const SafetensorsEntry& other : entries) names.push_back(other.name);
    const std::string near = nearest_name(name, names);
    fail(map->path(), "has no tensor \"{}\"{}", name,
         near.empty() ? "" : fmt::format("; did you mean \"{}\"?", near));
  }
  const StoredType* type = find_type(e->dtype);
  require(type != nullptr && type->dtype.has_value(), map->path(),
          "tensor \"{}\" is {}, which cannot be read here (F32, F16, BF16, I32, I64, U8, I8 can)", name,
          e->dtype);
  const auto address = reinterpret_cast<uintptr_t>(e->data.data());
  if (address % static_cast<uintptr_t>(dtype_bytes(*type->dtype)) == 0)
    return Tensor::borrow(e->data.data(), e->shape, *type->dtype, map);
  // The format promises no alignment: such a tensor is copied.
  Tensor copy = Tensor::empty(host_allocator(), e->shape, *type->dtype, "safetensors.unaligned");
  if (!e->data.empty()) std::memcpy(copy.raw(), e->data.data(), e->data.size());
  return copy;
}

SafetensorsWriter::SafetensorsWriter(const std::string& path, const std::vector<Declared>& tensors,
                                     const std::map<std::string, std::string>& metadata)
    : file_(path), path_(path) {
  std::unordered_set<std::string_view> names;
  // Written by hand: an ordered JSON object is slow to build where there are many names.
  std::string header = "{";
  if (!metadata.empty()) header += "\"__metadata__\":" + Json(metadata).dump();
  for (const Declared& t : tensors) {
    require(names.insert(t.name).second, path, "two tensors named \"{}\" cannot be written into one file",
            t.name);
    const auto bytes = bytes_of(*find_type(stored_name(t.dtype)), t.shape);
    require(bytes.has_value(), path, "tensor \"{}\" {} is too large to be written", t.name, t.shape.str());
    std::string shape;
    for (int i = 0; i < t.shape.rank(); ++i) shape += (i ? "," : "") + std::to_string(t.shape[i]);
    header += fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                          header.size() > 1 ? "," : "", Json(t.name).dump(), stored_name(t.dtype), shape,
                          expected_, expected_ + *bytes);
    expected_ += *bytes;
  }
  header += "}";
  header.resize((header.size() + 8 + 63) / 64 * 64 - 8, ' ');  // so that the values begin at a multiple of 64
  require(header.size() <= kMaxHeader, path,
          "{} tensors make a header of {} bytes, more than the format allows", tensors.size(), header.size());
  const uint64_t length = header.size();
  file_.write(std::as_bytes(std::span(&length, 1)));
  file_.write(header);
}

void SafetensorsWriter::write(std::span<const std::byte> bytes) {
  require(bytes.size() <= expected_ - written_, path_, "more bytes were given than the {} that were declared",
          expected_);
  written_ += bytes.size();
  file_.write(bytes);
}

void SafetensorsWriter::commit() {
  require(written_ == expected_, path_, "{} bytes were given but {} were declared", written_, expected_);
  file_.commit();
}

void write_safetensors(const std::string& path, const std::vector<std::pair<std::string, Tensor>>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<SafetensorsWriter::Declared> declared;
  for (const auto& [name, t] : tensors) declared.push_back({name, t.dtype(), t.shape()});
  SafetensorsWriter writer(path, declared, metadata);
  for (const auto& [name, t] : tensors) writer.write({t.raw(), static_cast<size_t>(t.bytes())});
  writer.commit();
}

}  // namespace nibble::io
