#include "base/json.h"

#include <string>
#include <vector>

#include "base/error.h"

namespace nibble {
namespace {

constexpr int kMaxDepth = 256;
constexpr int64_t kMaxMembers =
    20'000;  // finding a key takes time with their number, so building takes its square

template <class T>
constexpr const char* type_name();
template <>
constexpr const char* type_name<bool>() {
  return "true or false";
}
template <>
constexpr const char* type_name<int64_t>() {
  return "a whole number";
}
template <>
constexpr const char* type_name<double>() {
  return "a number";
}
template <>
constexpr const char* type_name<std::string>() {
  return "a string";
}
template <>
constexpr const char* type_name<std::vector<int64_t>>() {
  return "a list of whole numbers";
}
template <>
constexpr const char* type_name<std::vector<double>>() {
  return "a list of numbers";
}
template <>
constexpr const char* type_name<std::vector<std::string>>() {
  return "a list of strings";
}

template <class T>
bool holds(const Json& v) {
  if constexpr (std::is_same_v<T, bool>) {
    return v.is_boolean();
  } else if constexpr (std::is_same_v<T, int64_t>) {
    return v.is_number_integer() && !(v.is_number_unsigned() && v.get<uint64_t>() > uint64_t{INT64_MAX});
  } else if constexpr (std::is_same_v<T, double>) {
    return v.is_number();
  } else if constexpr (std::is_same_v<T, std::string>) {
    return v.is_string();
  } else {
    if (!v.is_array()) return false;
    for (const auto& e : v)
      if (!holds<typename T::value_type>(e)) return false;
    return true;
  }
}

template <class T>
T convert(const Json& v, const char* key, std::string_view where) {
  if (!holds<T>(v)) {
    std::string shown = v.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (shown.size() > 60) shown = shown.substr(0, 60) + "…";
    fail(where, "\"{}\" should be {}, got {}", key, type_name<T>(), shown);
  }
  return v.get<T>();
}

}  // namespace

Json parse_json(std::string_view text, std::string_view where) {
  std::vector<int64_t> members;  // of the objects that are open, by depth
  const auto limit = [&](int depth, Json::parse_event_t event, Json&) {
    if (depth > kMaxDepth) fail(where, "JSON is nested more than {} levels deep", kMaxDepth);
    if (event == Json::parse_event_t::object_start) {
      members.resize(static_cast<size_t>(depth) + 2, 0);
      members.back() = 0;
    } else if (event == Json::parse_event_t::key) {
      require(++members[static_cast<size_t>(depth)] <= kMaxMembers, where,
              "has a JSON object of more than {} members", kMaxMembers);
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), limit);
  } catch (const nlohmann::json::parse_error& e) {
    size_t line = 1, column = 1;
    for (size_t i = 0; i + 1 < e.byte && i < text.size(); ++i) {
      if (text[i] == '\n') {
        ++line;
        column = 1;
      } else {
        ++column;
      }
    }
    std::string_view what = e.what();
    if (const size_t at = what.find("syntax error"); at != std::string_view::npos) what.remove_prefix(at);
    fail(where, "is not valid JSON at line {}, column {}: {}", line, column, what);
  } catch (const nlohmann::json::out_of_range&) {
    fail(where, "holds a number that is too large for JSON");
  }
}

template <class T>
T json_get(const Json& object, const char* key, std::string_view where) {
  require(object.is_object() && object.contains(key), where, "has no \"{}\" ({} expected)", key,
          type_name<T>());
  return convert<T>(object[key], key, where);
}

template <class T>
T json_get(const Json& object, const char* key, T otherwise, std::string_view where) {
  if (!object.is_object() || !object.contains(key) || object[key].is_null()) return otherwise;
  return convert<T>(object[key], key, where);
}

#define NIBBLE_JSON_GET(T)                                            \
  template T json_get<T>(const Json&, const char*, std::string_view); \
  template T json_get<T>(const Json&, const char*, T, std::string_view);
NIBBLE_JSON_GET(bool)
NIBBLE_JSON_GET(int64_t)
NIBBLE_JSON_GET(double)
NIBBLE_JSON_GET(std::string)
NIBBLE_JSON_GET(std::vector<int64_t>)
NIBBLE_JSON_GET(std::vector<double>)
NIBBLE_JSON_GET(std::vector<std::string>)
#undef NIBBLE_JSON_GET

}  // namespace nibble
