// A whole file mapped read-only. The mapping lives as long as any copy of the shared pointer.
// Errors: Error{path} when the file is absent, unreadable or not a regular file. An empty file maps to zero
// bytes.
#pragma once
#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace nibble {

class MappedFile {
 public:
  static std::shared_ptr<const MappedFile> open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }
  // Tells the kernel that this part of the mapping was used up: its pages leave resident memory until read
  // again.
  void forget(std::span<const std::byte> part) const;

 private:
  MappedFile() = default;
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace nibble
