#include "tests/fuzz/fuzz.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>

namespace nibble::fuzz {
namespace {

namespace fs = std::filesystem;

std::vector<Target>& registry() {
  static std::vector<Target> all;
  return all;
}

struct Scratch {
  Scratch() {
    const fs::path root = fs::exists("/dev/shm") ? fs::path("/dev/shm") : fs::temp_directory_path();
    path = root / ("nibble_fuzz_" + std::to_string(::getpid()));
    fs::create_directories(path);
  }
  ~Scratch() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  fs::path path;
};

}  // namespace

Registration::Registration(const char* name, void (*body)(std::string_view)) {
  registry().push_back({name, body});
}

std::vector<Target> targets() {
  std::vector<Target> all = registry();
  std::sort(all.begin(), all.end(),
            [](const Target& a, const Target& b) { return std::string_view(a.name) < b.name; });
  return all;
}

std::string scratch(const std::string& name) {
  static const Scratch directory;
  return (directory.path / name).string();
}

std::string scratch_directory(const std::string& name) {
  const std::string path = scratch(name);
  fs::create_directories(path);
  return path;
}

void put(const std::string& path, std::string_view bytes) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (file == nullptr || std::fwrite(bytes.data(), 1, bytes.size(), file) != bytes.size() ||
      std::fclose(file) != 0) {
    std::perror(path.c_str());
    std::abort();
  }
}

}  // namespace nibble::fuzz
