#pragma once
#include <nlohmann/json_fwd.hpp>

namespace nibble {
using Json = nlohmann::ordered_json;
}
