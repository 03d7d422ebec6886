// What a training run leaves to be resumed: directories <run>/checkpoint-<step>, each complete or absent.
//
// A checkpoint is written into checkpoint-<step>.tmp, flushed, and renamed: the rename is the commit, so a
// process killed at any moment leaves the earlier checkpoints valid. One writer at a time holds RunLock.
//   state.safetensors   named tensors: adapter, optimizer state …
//   state.json          {"format": "nibble-train-state", "version": 1, "step": …, "scalars": …}
// Errors: Error{path} with the cause; a failed write leaves nothing behind and the earlier checkpoints as
// they are.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "tensor/tensor.h"

namespace nibble::io {

struct TrainState {
  int64_t step = 0;
  std::vector<std::pair<std::string, Tensor>> tensors;  // on the host; after reading: views over the file
  Json scalars;                                         // finite numbers: exact through JSON

  // Errors: no tensor of that name.
  const Tensor& tensor(const std::string& name) const;
};

struct CheckpointInfo {
  std::string path;
  int64_t step = 0;
};

// Held while a run writes its directory (created if need be). Also finishes what a killed writer left:
// completes an interrupted replacement and removes partial directories. Errors: another process holds it (its
// id is named).
class RunLock {
 public:
  explicit RunLock(const std::string& run_directory);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  int fd_ = -1;
};

// `also` may write further files into the directory it is given (an adapter in PEFT's format); they are part
// of the checkpoint. An existing checkpoint of the same step is replaced. Returns the checkpoint's path.
std::string write_checkpoint(const std::string& run_directory, const TrainState& state,
                             const std::function<void(const std::string& directory)>& also = {});
TrainState read_checkpoint(const std::string& path);

// Complete checkpoints by ascending step; the newest of them.
std::vector<CheckpointInfo> list_checkpoints(const std::string& run_directory);
std::optional<CheckpointInfo> newest_checkpoint(const std::string& run_directory);
// Removes the oldest beyond `keep` (≥ 1), but never that of `best_step` (negative: none) and never the
// newest.
void prune_checkpoints(const std::string& run_directory, int64_t keep, int64_t best_step);

// Errors: fewer than `bytes` are free where `directory` is or will be; `what` is named as that which needs
// them.
void require_free_disk(const std::string& directory, int64_t bytes, std::string_view what);

}  // namespace nibble::io
