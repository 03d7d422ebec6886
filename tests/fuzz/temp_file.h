// Parsers of files read from a path: the fuzzer's bytes go into a file of this process, in memory where there
// is /dev/shm.
#pragma once
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>

namespace nibble::fuzz {

inline std::string temp_directory() {
  const std::string root =
      std::filesystem::exists("/dev/shm") ? "/dev/shm" : std::filesystem::temp_directory_path().string();
  const std::string path = root + "/nibble_fuzz_" + std::to_string(::getpid());
  std::filesystem::create_directories(path);
  return path;
}

inline void put(const std::string& path, const uint8_t* data, size_t size) {
  if (std::FILE* f = std::fopen(path.c_str(), "wb")) {
    std::fwrite(data, 1, size, f);
    std::fclose(f);
  }
}

}  // namespace nibble::fuzz
