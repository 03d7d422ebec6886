#include "base/gguf.h"

#include <bit>
#include <cstring>
#include <set>
#include <type_traits>

#include "base/error.h"
#include "base/text.h"

namespace nibble {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF values are copied as they are stored");

constexpr int kMaxArrayDepth = 64;
constexpr uint32_t kMaxDims = 4;
constexpr uint64_t kDefaultAlignment = 32;

// Type numbers of metadata values.
enum : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };

class Reader {
 public:
  Reader(std::span<const std::byte> bytes, const std::string& path) : bytes_(bytes), path_(path) {}

  size_t position() const { return at_; }
  uint64_t remaining() const { return bytes_.size() - at_; }

  std::span<const std::byte> take(uint64_t count, const char* what) {
    require(count <= remaining(), path_,
            "ends inside {}: {} bytes are needed at byte {} but {} are left; is the file cut off or damaged?",
            what, count, at_, remaining());
    const auto part = bytes_.subspan(at_, count);
    at_ += count;
    return part;
  }

  template <class T>
  T value(const char* what) {
    T v;
    std::memcpy(&v, take(sizeof(T), what).data(), sizeof(T));
    return v;
  }

  std::string_view string(const char* what) {
    const auto length = value<uint64_t>(what);
    const auto part = take(length, what);
    return {reinterpret_cast<const char*>(part.data()), part.size()};
  }

  std::string name(const char* what) {
    const size_t begin = at_;
    const std::string_view text = string(what);
    require(find_invalid_utf8(text) == std::string_view::npos, path_, "{} at byte {} is not valid UTF-8",
            what, begin);
    return std::string(text);
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string& path_;
  size_t at_ = 0;
};

// Bytes that an element takes at least; 0 for a type that does not exist.
uint64_t least_bytes(uint32_t type) {
  switch (type) {
    case kU8:
    case kI8:
    case kBool:
      return 1;
    case kU16:
    case kI16:
      return 2;
    case kU32:
    case kI32:
    case kF32:
      return 4;
    case kU64:
    case kI64:
    case kF64:
    case kString:
      return 8;
    case kArray:
      return 12;
    default:
      return 0;
  }
}

template <class T, class Out>
void read_array_of(Reader& in, uint64_t count, std::vector<Out>& out) {
  const auto bytes = in.take(count * sizeof(T), "an array");
  out.reserve(out.size() + count);
  for (uint64_t i = 0; i < count; ++i) {
    T v;
    std::memcpy(&v, bytes.data() + i * sizeof(T), sizeof(T));
    if constexpr (std::is_same_v<Out, int64_t> && std::is_unsigned_v<T>) {
      out.push_back(static_cast<int64_t>(v));
    } else {
      out.push_back(static_cast<Out>(v));
    }
  }
}

void read_array(Reader& in, const std::string& path, const std::string& key, int depth, GgufArray& out) {
  require(depth < kMaxArrayDepth, path, "the arrays of \"{}\" are nested more than {} levels deep", key,
          kMaxArrayDepth);
  const auto type = in.value<uint32_t>("an array's type");
  const auto count = in.value<uint64_t>("an array's length");
  const uint64_t least = least_bytes(type);
  require(least > 0, path, "the array \"{}\" has elements of unknown type {}", key, type);
  require(count <= in.remaining() / least, path,
          "the array \"{}\" claims {} elements but only {} bytes are left; is the file cut off or damaged?",
          key, count, in.remaining());
  switch (type) {
    case kU8:
      read_array_of<uint8_t>(in, count, out.integers);
      break;
    case kI8:
      read_array_of<int8_t>(in, count, out.integers);
      break;
    case kU16:
      read_array_of<uint16_t>(in, count, out.integers);
      break;
    case kI16:
      read_array_of<int16_t>(in, count, out.integers);
      break;
    case kU32:
      read_array_of<uint32_t>(in, count, out.integers);
      break;
    case kI32:
      read_array_of<int32_t>(in, count, out.integers);
      break;
    case kU64:
      read_array_of<uint64_t>(in, count, out.integers);
      break;
    case kI64:
      read_array_of<int64_t>(in, count, out.integers);
      break;
    case kBool:
      read_array_of<uint8_t>(in, count, out.integers);
      break;
    case kF32:
      read_array_of<float>(in, count, out.numbers);
      break;
    case kF64:
      read_array_of<double>(in, count, out.numbers);
      break;
    case kString:
      out.strings.reserve(out.strings.size() + count);
      for (uint64_t i = 0; i < count; ++i) out.strings.emplace_back(in.string("an array of strings"));
      break;
    default:
      for (uint64_t i = 0; i < count; ++i) read_array(in, path, key, depth + 1, out);
  }
}

GgufValue read_value(Reader& in, const std::string& path, const std::string& key) {
  const auto type = in.value<uint32_t>("a value's type");
  switch (type) {
    case kU8:
      return uint64_t{in.value<uint8_t>("a value")};
    case kU16:
      return uint64_t{in.value<uint16_t>("a value")};
    case kU32:
      return uint64_t{in.value<uint32_t>("a value")};
    case kU64:
      return in.value<uint64_t>("a value");
    case kI8:
      return int64_t{in.value<int8_t>("a value")};
    case kI16:
      return int64_t{in.value<int16_t>("a value")};
    case kI32:
      return int64_t{in.value<int32_t>("a value")};
    case kI64:
      return in.value<int64_t>("a value");
    case kF32:
      return static_cast<double>(in.value<float>("a value"));
    case kF64:
      return in.value<double>("a value");
    case kBool:
      return in.value<uint8_t>("a value") != 0;
    case kString:
      return std::string(in.string("a string value"));
    case kArray: {
      auto array = std::make_shared<GgufArray>();
      read_array(in, path, key, 0, *array);
      return std::shared_ptr<const GgufArray>(std::move(array));
    }
    default:
      fail(path, "the value of \"{}\" has unknown type {}; is the file damaged or of a newer format?", key,
           type);
  }
}

const char* held_type(const GgufValue& value) {
  constexpr const char* kNames[] = {"an unsigned integer", "an integer", "a number",
                                    "true or false",       "a string",   "an array"};
  return kNames[value.index()];
}

// The bytes a tensor takes; nullopt-like -1 when they do not fit 63 bits.
int64_t tensor_bytes(const GgufTensor& tensor, const std::string& path) {
  const GgmlBlock block = ggml_block(tensor.type);
  const int64_t columns = tensor.dims.empty() ? 1 : tensor.dims[0];
  require(columns % block.values == 0, path,
          "tensor \"{}\" has rows of {} values, no multiple of the {} in a {} block", tensor.name, columns,
          block.values, ggml_type_name(tensor.type));
  int64_t bytes = columns / block.values;
  bool overflow = __builtin_mul_overflow(bytes, block.bytes, &bytes);
  for (size_t i = 1; i < tensor.dims.size(); ++i)
    overflow |= __builtin_mul_overflow(bytes, tensor.dims[i], &bytes);
  return overflow ? -1 : bytes;
}

}  // namespace

GgufFile GgufFile::open(const std::string& path) {
  GgufFile file;
  file.map = MappedFile::open(path);
  const auto bytes = file.map->bytes();
  Reader in(bytes, path);
  require(bytes.size() >= 4 && std::memcmp(bytes.data(), "GGUF", 4) == 0, path,
          "is no GGUF file: it does not start with \"GGUF\"");
  in.take(4, "the magic");
  const auto version = in.value<uint32_t>("the header");
  require((version & 0xFFFF) != 0, path, "is a big-endian GGUF file; only little-endian ones can be read");
  require(version == 2 || version == 3, path, "is GGUF version {}; versions 2 and 3 can be read", version);
  const auto tensor_count = in.value<uint64_t>("the header");
  const auto value_count = in.value<uint64_t>("the header");
  // Least sizes: an empty name, no dimensions, type and offset; an empty key, type and one byte.
  require(tensor_count <= in.remaining() / 24, path, "claims {} tensors, more than its {} bytes can hold",
          tensor_count, bytes.size());
  require(value_count <= in.remaining() / 13, path,
          "claims {} metadata values, more than its {} bytes can hold", value_count, bytes.size());

  for (uint64_t i = 0; i < value_count; ++i) {
    std::string key = in.name("a metadata key");
    GgufValue value = read_value(in, path, key);
    const auto [at, fresh] = file.metadata.emplace(std::move(key), std::move(value));
    require(fresh, path, "has the metadata key \"{}\" twice", at->first);
  }

  const int64_t alignment = file.integer("general.alignment", kDefaultAlignment);
  require(alignment > 0 && alignment <= (int64_t{1} << 30) &&
              std::has_single_bit(static_cast<uint64_t>(alignment)),
          path, "general.alignment is {}, expected a power of two", alignment);

  std::set<std::string, std::less<>> names;
  std::vector<uint64_t> offsets;
  file.tensors.reserve(tensor_count);
  for (uint64_t i = 0; i < tensor_count; ++i) {
    GgufTensor tensor;
    tensor.name = in.name("a tensor's name");
    require(names.insert(tensor.name).second, path, "has the tensor \"{}\" twice", tensor.name);
    const auto rank = in.value<uint32_t>("the tensor directory");
    require(rank <= kMaxDims, path, "tensor \"{}\" claims {} dimensions; at most {} are possible",
            tensor.name, rank, kMaxDims);
    for (uint32_t d = 0; d < rank; ++d) {
      const auto size = in.value<uint64_t>("the tensor directory");
      require(size >= 1 && size <= INT64_MAX, path, "tensor \"{}\" has size {} in dimension {}", tensor.name,
              size, d);
      tensor.dims.push_back(static_cast<int64_t>(size));
    }
    tensor.type = in.value<uint32_t>("the tensor directory");
    offsets.push_back(in.value<uint64_t>("the tensor directory"));
    file.tensors.push_back(std::move(tensor));
  }

  const auto unit = static_cast<uint64_t>(alignment);
  const uint64_t data_begin = (in.position() + unit - 1) / unit * unit;
  const uint64_t data_size = bytes.size() > data_begin ? bytes.size() - data_begin : 0;
  for (size_t i = 0; i < file.tensors.size(); ++i) {
    GgufTensor& tensor = file.tensors[i];
    require(offsets[i] % unit == 0, path, "tensor \"{}\" starts at {}, no multiple of the alignment {}",
            tensor.name, offsets[i], unit);
    require(offsets[i] <= data_size, path,
            "tensor \"{}\" starts at byte {} of {} data bytes; is the file cut off?", tensor.name, offsets[i],
            data_size);
    if (ggml_block(tensor.type).bytes == 0) continue;
    const int64_t size = tensor_bytes(tensor, path);
    require(size >= 0 && static_cast<uint64_t>(size) <= data_size - offsets[i], path,
            "tensor \"{}\" needs {} bytes but {} are left at its offset; is the file cut off?", tensor.name,
            size < 0 ? "more than 2^63" : std::to_string(size), data_size - offsets[i]);
    tensor.data = bytes.subspan(data_begin + offsets[i], static_cast<size_t>(size));
  }
  return file;
}

const GgufValue* GgufFile::find(std::string_view key) const {
  const auto at = metadata.find(key);
  return at == metadata.end() ? nullptr : &at->second;
}

int64_t GgufFile::integer(std::string_view key) const {
  const GgufValue* value = find(key);
  require(value != nullptr, path(), "has no metadata key \"{}\" (an integer expected)", key);
  if (const auto* i = std::get_if<int64_t>(value)) return *i;
  const auto* u = std::get_if<uint64_t>(value);
  require(u != nullptr, path(), "\"{}\" should be an integer, got {}", key, held_type(*value));
  require(*u <= INT64_MAX, path(), "\"{}\" is {}, more than 2^63", key, *u);
  return static_cast<int64_t>(*u);
}

int64_t GgufFile::integer(std::string_view key, int64_t otherwise) const {
  return find(key) == nullptr ? otherwise : integer(key);
}

double GgufFile::number(std::string_view key, double otherwise) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return otherwise;
  if (const auto* d = std::get_if<double>(value)) return *d;
  return static_cast<double>(integer(key));
}

bool GgufFile::boolean(std::string_view key, bool otherwise) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return otherwise;
  const auto* b = std::get_if<bool>(value);
  require(b != nullptr, path(), "\"{}\" should be true or false, got {}", key, held_type(*value));
  return *b;
}

std::string GgufFile::string(std::string_view key) const {
  const GgufValue* value = find(key);
  require(value != nullptr, path(), "has no metadata key \"{}\" (a string expected)", key);
  const auto* s = std::get_if<std::string>(value);
  require(s != nullptr, path(), "\"{}\" should be a string, got {}", key, held_type(*value));
  return *s;
}

std::string GgufFile::string(std::string_view key, std::string_view otherwise) const {
  return find(key) == nullptr ? std::string(otherwise) : string(key);
}

const GgufArray& GgufFile::array(std::string_view key) const {
  const GgufValue* value = find(key);
  require(value != nullptr, path(), "has no metadata key \"{}\" (an array expected)", key);
  const auto* a = std::get_if<std::shared_ptr<const GgufArray>>(value);
  require(a != nullptr, path(), "\"{}\" should be an array, got {}", key, held_type(*value));
  return **a;
}

GgmlBlock ggml_block(uint32_t type) {
  switch (static_cast<GgmlType>(type)) {
    case GgmlType::kF32:
      return {4, 1};
    case GgmlType::kF16:
      return {2, 1};
    case GgmlType::kQ4_0:
      return {18, 32};
    case GgmlType::kQ4_1:
      return {20, 32};
    case GgmlType::kQ5_0:
      return {22, 32};
    case GgmlType::kQ5_1:
      return {24, 32};
    case GgmlType::kQ8_0:
      return {34, 32};
    case GgmlType::kQ8_1:
      return {36, 32};
    case GgmlType::kQ2_K:
      return {84, 256};
    case GgmlType::kQ3_K:
      return {110, 256};
    case GgmlType::kQ4_K:
      return {144, 256};
    case GgmlType::kQ5_K:
      return {176, 256};
    case GgmlType::kQ6_K:
      return {210, 256};
    case GgmlType::kQ8_K:
      return {292, 256};
    case GgmlType::kI8:
      return {1, 1};
    case GgmlType::kI16:
      return {2, 1};
    case GgmlType::kI32:
      return {4, 1};
    case GgmlType::kI64:
    case GgmlType::kF64:
      return {8, 1};
    case GgmlType::kBF16:
      return {2, 1};
  }
  return {0, 0};
}

const char* ggml_type_name(uint32_t type) {
  switch (static_cast<GgmlType>(type)) {
    case GgmlType::kF32:
      return "F32";
    case GgmlType::kF16:
      return "F16";
    case GgmlType::kQ4_0:
      return "Q4_0";
    case GgmlType::kQ4_1:
      return "Q4_1";
    case GgmlType::kQ5_0:
      return "Q5_0";
    case GgmlType::kQ5_1:
      return "Q5_1";
    case GgmlType::kQ8_0:
      return "Q8_0";
    case GgmlType::kQ8_1:
      return "Q8_1";
    case GgmlType::kQ2_K:
      return "Q2_K";
    case GgmlType::kQ3_K:
      return "Q3_K";
    case GgmlType::kQ4_K:
      return "Q4_K";
    case GgmlType::kQ5_K:
      return "Q5_K";
    case GgmlType::kQ6_K:
      return "Q6_K";
    case GgmlType::kQ8_K:
      return "Q8_K";
    case GgmlType::kI8:
      return "I8";
    case GgmlType::kI16:
      return "I16";
    case GgmlType::kI32:
      return "I32";
    case GgmlType::kI64:
      return "I64";
    case GgmlType::kF64:
      return "F64";
    case GgmlType::kBF16:
      return "BF16";
  }
  return "unknown";
}

}  // namespace nibble
