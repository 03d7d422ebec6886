// Where the tokenizer tests find their files, and how they encode.
#pragma once
#include <string>

#include "text/tokenizer.h"

namespace nibble::text {

inline const std::string kShared = NIBBLE_SOURCE_DIR "/../shared/data/";
inline const std::string kGoldens = NIBBLE_SOURCE_DIR "/tests/goldens/tokenizer/";
inline constexpr EncodeOptions kVerbatim{.add_special = false, .parse_special = false};

}  // namespace nibble::text
