#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/error.h"

namespace nibble {
namespace fs = std::filesystem;

std::string read_file(const std::string& path, uint64_t limit) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  require(fd >= 0, path, "cannot open: {}", std::strerror(errno));
  std::string text;
  char block[1 << 16];
  for (;;) {
    const ssize_t n = ::read(fd, block, sizeof block);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int error = errno;
      ::close(fd);
      fail(path, "cannot read: {}", std::strerror(error));
    }
    if (n == 0) break;
    text.append(block, static_cast<size_t>(n));
    if (text.size() > limit) {
      ::close(fd);
      fail(path, "is larger than {} bytes, the most that is read here", limit);
    }
  }
  ::close(fd);
  return text;
}

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)) {
  temporary_ = fmt::format("{}.tmp-{}", path_, ::getpid());
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  require(fd_ >= 0, path_, "cannot write here: {}; choose another place or mend its permissions",
          std::strerror(errno));
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) {
    ::close(fd_);
    ::unlink(temporary_.c_str());
  }
}

void AtomicFile::flush() {
  size_t done = 0;
  while (done < buffer_.size()) {
    const ssize_t n = ::write(fd_, buffer_.data() + done, buffer_.size() - done);
    if (n < 0 && errno == EINTR) continue;
    require(n > 0, path_, "cannot write {} bytes: {}; the earlier file, if any, is untouched", buffer_.size(),
            std::strerror(errno));
    done += static_cast<size_t>(n);
  }
  buffer_.clear();
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  write(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

void AtomicFile::write(std::string_view text) {
  constexpr size_t kBlock = size_t{1} << 20;
  while (!text.empty()) {
    const size_t n = std::min(text.size(), kBlock - buffer_.size());
    buffer_.append(text.substr(0, n));
    text.remove_prefix(n);
    if (buffer_.size() == kBlock) flush();
  }
}

void AtomicFile::commit() {
  flush();
  int flushed = 0;
  do flushed = ::fsync(fd_);
  while (flushed != 0 && errno == EINTR);
  require(flushed == 0, path_, "cannot flush to disk: {}", std::strerror(errno));
  ::close(fd_);
  fd_ = -1;
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary_.c_str());
    fail(path_, "cannot rename into place: {}", std::strerror(error));
  }
  sync_directory(fs::path(path_).parent_path().string());
}

void write_file_atomic(const std::string& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

void make_directories(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  require(!error, path, "cannot create this directory: {}", error.message());
}

void sync_directory(const std::string& path) {
  const int fd = ::open(path.empty() ? "." : path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

uint64_t free_disk_bytes(const std::string& path) {
  fs::path p = fs::absolute(path);
  while (!fs::exists(p) && p.has_parent_path() && p != p.parent_path()) p = p.parent_path();
  struct statvfs info {};
  require(::statvfs(p.c_str(), &info) == 0, path, "cannot ask the file system for its free space: {}",
          std::strerror(errno));
  return uint64_t{info.f_bavail} * info.f_frsize;
}

std::string hash_bytes(std::span<const std::byte> bytes) {
  const XXH128_hash_t h = XXH3_128bits(bytes.data(), bytes.size());
  return fmt::format("{:016x}{:016x}", h.high64, h.low64);
}

std::string hash_text(std::string_view text) {
  return hash_bytes({reinterpret_cast<const std::byte*>(text.data()), text.size()});
}

}  // namespace nibble
