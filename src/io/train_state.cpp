#include "io/train_state.h"

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
#include "base/text.h"
#include "io/safetensors.h"

namespace nibble::io {
namespace {

namespace fs = std::filesystem;
constexpr const char *kState = "state.json", *kTensors = "state.safetensors", *kFormat = "nibble-train-state";
constexpr std::string_view kName = "checkpoint-", kPartial = ".tmp", kReplaced = ".old", kRemoved = ".gone";

void rename_or_fail(const std::string& from, const std::string& to) {
  require(::rename(from.c_str(), to.c_str()) == 0, to, "cannot rename {} into place: {}", from,
          std::strerror(errno));
}

// The step of "checkpoint-120"; nullopt for any other name.
std::optional<int64_t> step_of(std::string_view name) {
  if (!name.starts_with(kName)) return std::nullopt;
  name.remove_prefix(kName.size());
  int64_t step = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), step);
  if (error != std::errc() || end != name.data() + name.size() || name.empty() || name[0] == '-')
    return std::nullopt;
  return step;
}

void finish_interrupted_work(const fs::path& run) {
  std::vector<fs::path> replaced, remove;
  for (const auto& entry : fs::directory_iterator(run)) {
    const std::string name = entry.path().filename().string();
    for (std::string_view suffix : {kPartial, kReplaced, kRemoved}) {
      if (!name.ends_with(suffix) || !step_of(std::string_view(name).substr(0, name.size() - suffix.size())))
        continue;
      (suffix == kReplaced ? replaced : remove).push_back(entry.path());
    }
  }
  for (const fs::path& old : replaced) {
    const fs::path final = old.parent_path() / old.stem();
    if (fs::exists(final))
      remove.push_back(old);
    else
      rename_or_fail(old.string(), final.string());
  }
  for (const fs::path& path : remove) fs::remove_all(path);
}

// A directory that vanishes again unless it was renamed.
struct Partial {
  explicit Partial(std::string p) : path(std::move(p)) {
    fs::remove_all(path);
    make_directories(path);
  }
  ~Partial() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  std::string path;
};

}  // namespace

const Tensor& TrainState::tensor(const std::string& name) const {
  for (const auto& [n, t] : tensors)
    if (n == name) return t;
  fail(kTensors, "the checkpoint of step {} has no \"{}\"; was it written by another version or recipe?",
       step, name);
}

RunLock::RunLock(const std::string& run_directory) {
  make_directories(run_directory);
  const std::string path = run_directory + "/.lock";
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  require(fd_ >= 0, run_directory, "cannot write here: {}", std::strerror(errno));
  if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    ::close(fd_);
    require(error == EWOULDBLOCK, path, "cannot be locked: {}", std::strerror(error));
    fail(run_directory, "is being written by process {}; wait for it, stop it, or choose another --out",
         trim(read_file(path, 64)));
  }
  const std::string id = std::to_string(::getpid()) + "\n";
  if (::ftruncate(fd_, 0) != 0 || ::write(fd_, id.data(), id.size()) != static_cast<ssize_t>(id.size())) {
    const int error = errno;
    ::close(fd_);
    fail(path, "cannot write: {}", std::strerror(error));
  }
  try {
    finish_interrupted_work(run_directory);
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

// The file stays: removing it would let two processes lock two different files of that name.
RunLock::~RunLock() { ::close(fd_); }

std::string write_checkpoint(const std::string& run_directory, const TrainState& state,
                             const std::function<void(const std::string& directory)>& also) {
  require(state.step >= 0, run_directory, "cannot write a checkpoint of step {}", state.step);
  std::string path = fmt::format("{}/{}{}", run_directory, kName, state.step);
  const Partial partial(path + std::string(kPartial));
  if (also) also(partial.path);
  write_safetensors(partial.path + "/" + kTensors, state.tensors, {{"format", kFormat}});
  const Json head = {{"format", kFormat}, {"version", 1}, {"step", state.step}, {"scalars", state.scalars}};
  write_file_atomic(partial.path + "/" + kState, head.dump(1) + "\n");
  sync_directory(partial.path);

  const std::string old = path + std::string(kReplaced);
  const bool replaces = fs::exists(path);
  if (replaces) rename_or_fail(path, old);
  rename_or_fail(partial.path, path);
  sync_directory(run_directory);
  if (replaces) fs::remove_all(old);
  return path;
}

TrainState read_checkpoint(const std::string& path) {
  const std::string head_path = path + "/" + kState;
  require(fs::exists(head_path) && fs::exists(path + "/" + kTensors), path,
          "is no checkpoint: {} and {} are expected", kState, kTensors);
  const Json head = parse_json(read_file(head_path, 64 << 20), head_path);
  require(json_get<std::string>(head, "format", "", head_path) == kFormat, head_path,
          "is no training state of nibble");
  const auto version = json_get<int64_t>(head, "version", head_path);
  require(version == 1, head_path, "is of version {}; this program reads version 1", version);
  TrainState state;
  state.step = json_get<int64_t>(head, "step", head_path);
  require(head.contains("scalars"), head_path, "has no \"scalars\"");
  state.scalars = head["scalars"];
  const SafetensorsFile file = SafetensorsFile::open(path + "/" + kTensors);
  for (const SafetensorsEntry& e : file.entries) state.tensors.emplace_back(e.name, file.tensor(e.name));
  return state;
}

std::vector<CheckpointInfo> list_checkpoints(const std::string& run_directory) {
  std::vector<CheckpointInfo> out;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(run_directory, error)) {
    const auto step = step_of(entry.path().filename().string());
    if (step && fs::exists(entry.path() / kState) && fs::exists(entry.path() / kTensors))
      out.push_back({entry.path().string(), *step});
  }
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.step < b.step; });
  return out;
}

std::optional<CheckpointInfo> newest_checkpoint(const std::string& run_directory) {
  const auto all = list_checkpoints(run_directory);
  if (all.empty()) return std::nullopt;
  return all.back();
}

void prune_checkpoints(const std::string& run_directory, int64_t keep, int64_t best_step) {
  const auto all = list_checkpoints(run_directory);
  int64_t over = static_cast<int64_t>(all.size()) - std::max<int64_t>(keep, 1);
  for (size_t i = 0; i + 1 < all.size() && over > 0; ++i) {
    if (all[i].step == best_step) continue;
    const std::string gone = all[i].path + std::string(kRemoved);
    rename_or_fail(all[i].path, gone);  // so that a half-removed one is never taken for a checkpoint
    fs::remove_all(gone);
    --over;
  }
}

void require_free_disk(const std::string& directory, int64_t bytes, std::string_view what) {
  const uint64_t free = free_disk_bytes(directory);
  require(bytes <= 0 || free >= static_cast<uint64_t>(bytes), directory,
          "{} needs {} of disk but {} are free; make room, choose another --out, or keep fewer checkpoints "
          "(save_total_limit)",
          what, show_bytes(static_cast<double>(bytes)), show_bytes(static_cast<double>(free)));
}

}  // namespace nibble::io
