// The directory of a run: who may write in it, what is in it, and its checkpoints.
//
//   recipe.yaml  nibble_manifest.json  metrics.jsonl  loss.svg        the run
//   adapter_config.json  adapter_model.safetensors                    the final adapter (method full: a checkpoint)
//   best/                                                             the adapter with the lowest held-out loss
//   checkpoints/step-00000100/                                        complete or absent
//   .lock                                                             held by the one process that writes here
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace nibble::train {

struct Checkpoint {
  int64_t step;
  std::string path;
};

class RunDirectory {
 public:
  // Creates it and takes the lock, which ends with the process however that ends.
  // Errors: Error{path}: cannot be written; another process writes here.
  explicit RunDirectory(std::string path);
  ~RunDirectory();
  RunDirectory(const RunDirectory&) = delete;
  RunDirectory& operator=(const RunDirectory&) = delete;

  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }

  // Complete checkpoints by step.
  std::vector<Checkpoint> checkpoints() const;
  // `write` fills a directory that becomes the checkpoint of this step when all of it is on disk; then the oldest beyond
  // `keep` are removed. A checkpoint of this step that is there already is kept. A failure leaves no trace.
  std::string save_checkpoint(int64_t step, int64_t keep, const std::function<void(const std::string& directory)>& write);
  // Replaces directory `name` the same way: the old one is there until the new one is complete.
  void replace(const std::string& name, const std::function<void(const std::string& directory)>& write);

  // Removes what earlier runs left here (the files and folders named above, nothing else).
  void clear();
  // Errors: Error{path} when less than `bytes` is free, with both figures.
  void require_free(uint64_t bytes) const;

 private:
  void remove_leftovers() const;
  std::string path_;
  int lock_ = -1;
};

}  // namespace nibble::train
