// JSON values (nlohmann::json, keys kept in file order) and untrusted text turned into them.
// Include json_fwd.h where a declaration is enough: the full header is slow to compile.
#pragma once
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/json_fwd.h"

namespace nibble {

// Errors: Error{where} with line and column; also for more than 256 nested levels and for invalid UTF-8.
Json parse_json(std::string_view text, std::string_view where);

// A member of an object with its type checked: Error{where} names the key, the expected type and what came.
// With a default, a missing key or null gives the default.
template <class T>
T json_get(const Json& object, const char* key, std::string_view where);
template <class T>
T json_get(const Json& object, const char* key, T otherwise, std::string_view where);
// Instantiated for bool, int64_t, double, std::string, std::vector<int64_t>, std::vector<double>,
// std::vector<std::string>.

}  // namespace nibble
