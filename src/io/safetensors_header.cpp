#include "io/safetensors_header.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace nibble::io {
namespace {

// {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, …, "__metadata__": {"key": "value"}}
class Handler : public nlohmann::json_sax<nlohmann::json> {
 public:
  Handler(SafetensorsHeader& out, const std::string& path) : out_(out), path_(path) {}

  bool key(string_t& k) override {
    key_ = k;
    if (depth_ == 1) {
      name_ = k;
      in_metadata_ = k == "__metadata__";
      seen_ = 0;
      if (!in_metadata_) {
        out_.items.emplace_back();
        out_.items.back().name = k;
      }
    } else if (!in_metadata_) {
      const unsigned field = k == "dtype"          ? kDtype
                             : k == "shape"        ? kShape
                             : k == "data_offsets" ? kOffsets
                                                   : 0;
      require(field != 0, path_, "tensor \"{}\" has an unknown member \"{}\"; is this a safetensors file?",
              name_, k);
      require((seen_ & field) == 0, path_, "tensor \"{}\" has two members \"{}\"", name_, k);
      seen_ |= field;
    }
    return true;
  }
  bool start_object(size_t) override {
    require(!in_array_ && depth_ < 2, path_, "its header is nested too deeply at \"{}\"", name_);
    ++depth_;
    return true;
  }
  bool end_object() override {
    if (--depth_ == 1 && !in_metadata_) {
      require(seen_ == (kDtype | kShape | kOffsets), path_,
              "tensor \"{}\" lacks one of dtype, shape and data_offsets", name_);
      require(offsets_ == 2, path_, "tensor \"{}\" has {} data_offsets, expected 2", name_, offsets_);
      offsets_ = 0;
    }
    return true;
  }
  bool start_array(size_t) override {
    if (depth_ != 2 || in_metadata_ || in_array_ || (key_ != "shape" && key_ != "data_offsets"))
      wrong("an array");
    in_array_ = true;
    return true;
  }
  bool end_array() override {
    in_array_ = false;
    return true;
  }
  bool string(string_t& v) override {
    if (depth_ == 2 && in_metadata_) {
      out_.metadata[key_] = v;
    } else if (depth_ == 2 && !in_array_ && key_ == "dtype") {
      out_.items.back().dtype = v;
    } else {
      wrong("a string");
    }
    return true;
  }
  bool number_unsigned(number_unsigned_t v) override {
    if (!in_array_) wrong("a number");
    SafetensorsHeader::Item& item = out_.items.back();
    if (key_ == "shape") {
      require(item.shape.rank() < Shape::kMaxRank, path_, "tensor \"{}\" has more than {} dimensions", name_,
              Shape::kMaxRank);
      require(v <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()), path_,
              "tensor \"{}\" claims a dimension of {}", name_, v);
      item.shape.push_back(static_cast<int64_t>(v));
    } else {
      if (offsets_ < 2) (offsets_ == 0 ? item.begin : item.end) = v;
      ++offsets_;
    }
    return true;
  }
  bool null() override { return wrong("null"); }
  bool boolean(bool) override { return wrong("a truth value"); }
  bool number_integer(number_integer_t) override { return wrong("a negative number"); }
  bool number_float(number_float_t, const string_t&) override { return wrong("a fraction"); }
  bool binary(binary_t&) override { return wrong("binary data"); }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
    fail(path_, "its header is not valid JSON at byte {}; is the file damaged?", position);
  }

 private:
  static constexpr unsigned kDtype = 1, kShape = 2, kOffsets = 4;

  bool wrong(const char* what) {
    fail(path_, "its header has {} where \"{}\" of tensor \"{}\" does not allow one", what, key_, name_);
  }

  SafetensorsHeader& out_;
  const std::string& path_;
  std::string key_, name_;
  int depth_ = 0, offsets_ = 0;
  unsigned seen_ = 0;
  bool in_metadata_ = false, in_array_ = false;
};

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view json, const std::string& path) {
  SafetensorsHeader header;
  Handler handler(header, path);
  nlohmann::json::sax_parse(json.begin(), json.end(), &handler);
  return header;
}

}  // namespace nibble::io
