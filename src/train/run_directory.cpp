#include "train/run_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"

namespace nibble::train {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kPartial = ".partial-", kOld = ".old-";

// Everything under `directory` is on disk before its name says so.
void sync_tree(const std::string& directory) {
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    if (entry.is_directory()) {
      sync_directory(entry.path().string());
      continue;
    }
    const int fd = ::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
    require(fd >= 0 && ::fsync(fd) == 0, entry.path().string(), "cannot flush to disk: {}", std::strerror(errno));
    ::close(fd);
  }
  sync_directory(directory);
}

void rename_directory(const std::string& from, const std::string& to) {
  require(::rename(from.c_str(), to.c_str()) == 0, to, "cannot rename {} into place: {}", from, std::strerror(errno));
}

// Fills `partial`; removes it again when that fails.
void fill(const std::string& partial, const std::function<void(const std::string&)>& write) {
  try {
    fs::remove_all(partial);
    make_directories(partial);
    write(partial);
    sync_tree(partial);
  } catch (...) {
    std::error_code none;
    fs::remove_all(partial, none);
    throw;
  }
}

}  // namespace

RunDirectory::RunDirectory(std::string path) : path_(std::move(path)) {
  while (path_.size() > 1 && path_.back() == '/') path_.pop_back();
  make_directories(path_);
  const std::string lock = file(".lock");
  lock_ = ::open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  require(lock_ >= 0, path_, "cannot write in this directory: {}; choose another `out`", std::strerror(errno));
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    char owner[32] = {};
    const ssize_t n = ::pread(lock_, owner, sizeof owner - 1, 0);
    ::close(lock_);
    lock_ = -1;
    fail(path_, "another run{} writes in this directory; wait for it or choose another `out`",
         n > 0 ? fmt::format(" (process {})", trim(owner)) : "");
  }
  const std::string owner = fmt::format("{}\n", ::getpid());
  if (::ftruncate(lock_, 0) != 0 || ::pwrite(lock_, owner.data(), owner.size(), 0) < 0)
    log_debug("{}: cannot note the process", lock);
  remove_leftovers();
}

RunDirectory::~RunDirectory() {
  if (lock_ >= 0) ::close(lock_);
}

// What a killed run was writing or removing.
void RunDirectory::remove_leftovers() const {
  for (const std::string& place : {path_, file("checkpoints")}) {
    std::error_code none;
    if (!fs::is_directory(place, none)) continue;
    for (const auto& entry : fs::directory_iterator(place)) {
      const std::string name = entry.path().filename().string();
      // A replaced directory whose successor is missing was caught between two renames: it goes back.
      if (name.starts_with(kOld) && place == path_ && !fs::exists(file(name.substr(kOld.size()))))
        rename_directory(entry.path().string(), file(name.substr(kOld.size())));
      else if (name.starts_with(kPartial) || name.starts_with(kOld))
        fs::remove_all(entry.path(), none);
    }
  }
}

std::vector<Checkpoint> RunDirectory::checkpoints() const {
  std::vector<Checkpoint> found;
  std::error_code none;
  if (!fs::is_directory(file("checkpoints"), none)) return found;
  for (const auto& entry : fs::directory_iterator(file("checkpoints"))) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("step-") || !entry.is_directory()) continue;
    int64_t step = 0;
    const char* end = name.data() + name.size();
    if (const auto parsed = std::from_chars(name.data() + 5, end, step); parsed.ec == std::errc() && parsed.ptr == end)
      found.push_back({step, entry.path().string()});
  }
  std::sort(found.begin(), found.end(), [](const Checkpoint& a, const Checkpoint& b) { return a.step < b.step; });
  return found;
}

std::string RunDirectory::save_checkpoint(int64_t step, int64_t keep, const std::function<void(const std::string&)>& write) {
  const std::string folder = file("checkpoints"), name = fmt::format("step-{:08}", step), final = folder + "/" + name;
  if (!fs::exists(final)) {
    make_directories(folder);
    const std::string partial = folder + "/" + std::string(kPartial) + name;
    fill(partial, write);
    rename_directory(partial, final);
    sync_directory(folder);
  }
  std::vector<Checkpoint> all = checkpoints();
  for (size_t i = 0; i + static_cast<size_t>(keep) < all.size(); ++i) {
    // Renamed first, so that a half-removed one never looks complete.
    const std::string old = folder + "/" + std::string(kOld) + fs::path(all[i].path).filename().string();
    rename_directory(all[i].path, old);
    std::error_code none;
    fs::remove_all(old, none);
  }
  return final;
}

void RunDirectory::replace(const std::string& name, const std::function<void(const std::string&)>& write) {
  const std::string partial = file(std::string(kPartial) + name), final = file(name), old = file(std::string(kOld) + name);
  fill(partial, write);
  std::error_code none;
  fs::remove_all(old, none);
  if (fs::exists(final)) rename_directory(final, old);
  rename_directory(partial, final);
  sync_directory(path_);
  fs::remove_all(old, none);
}

void RunDirectory::clear() {
  for (const char* name : {"checkpoints", "best", "recipe.yaml", "nibble_manifest.json", "metrics.jsonl", "loss.svg", "adapter_config.json",
                           "adapter_model.safetensors"}) {
    std::error_code error;
    fs::remove_all(file(name), error);
    require(!error, file(name), "cannot be removed: {}", error.message());
  }
}

void RunDirectory::require_free(uint64_t bytes) const {
  const uint64_t free = free_disk_bytes(path_);
  require(free >= bytes, path_, "has {} of free disk, this run may need {}; free some, choose another `out`, or lower save_total_limit",
          show_bytes(static_cast<double>(free)), show_bytes(static_cast<double>(bytes)));
}

}  // namespace nibble::train
