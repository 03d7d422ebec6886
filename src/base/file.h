// Files: whole reads, atomic writes, hashes. A reader sees the old file or the new one, never a part.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace nibble {

// The whole file as text. Errors: Error{path}; also when it is larger than `limit` bytes.
std::string read_file(const std::string& path, uint64_t limit = uint64_t{1} << 32);

// Writes beside the name (same directory, ".tmp-<pid>"), flushes to disk, renames over `path` on commit().
// Destroying it without commit removes the temporary file. Errors name the path and the cause (no space, no
// permission).
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  void commit();

 private:
  void flush();
  std::string path_, temporary_, buffer_;
  int fd_ = -1;
};

void write_file_atomic(const std::string& path, std::string_view text);

// mkdir -p. Errors: Error{path}.
void make_directories(const std::string& path);
// fsync of a directory, so that renames inside it are durable.
void sync_directory(const std::string& path);
// Bytes free for this user on the file system that holds `path` (or its nearest existing parent).
uint64_t free_disk_bytes(const std::string& path);

// XXH3-128 as 32 hexadecimal digits: tells files apart, no protection against forgery.
std::string hash_bytes(std::span<const std::byte> bytes);
std::string hash_text(std::string_view text);

}  // namespace nibble
