// A small file that is made in memory and written elsewhere.
#pragma once
#include <string>

namespace nibble {

struct NamedFile {
  std::string name, bytes;
};

}  // namespace nibble
