// Runs a study: every cell of its grid once, in an order that shares work, each result on disk before the
// next begins.
//
// A cell is named by a hash over all that decides its result (recipe keys, measure, hashes of model files and
// data), so a study that was stopped, or whose file gained rows, runs only what is missing. A cell that fails
// is recorded with its message and does not stop the others; it is tried again when the study is run again.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "study/spec.h"

namespace nibble::study {

struct Cell {
  size_t model = 0, data = 0, variant = 0, measure = 0;  // indices into the spec (data: 0 when there is none)
  int64_t seed = 0;
  bool trains = false;  // false: the base as it is, the same for every seed
  std::string key;      // 32 hexadecimal digits
  std::string label;    // "LLaMA 260K · NF4 · perplexity"
};

struct CellResult {
  bool ok = false;
  double value = 0;
  double bits_per_weight = 0;  // of all weights as they are held
  double weight_bytes = 0;
  double seconds = 0;
  std::vector<double> losses;  // of training, when the cell trained
  std::string error;           // when it failed
};

struct StudyResults {
  std::vector<Cell> cells;
  std::map<std::string, CellResult> by_key;
  int64_t reused = 0, ran = 0, failed = 0;
  double seconds = 0;
  const CellResult* find(const Cell& cell) const;
};

struct RunnerOptions {
  std::string out;
  std::function<void(const std::string& line)> progress;  // told of each base and cell; may be empty
};
// Errors: UsageError for a measure that does not exist or lacks its options (before anything runs);
// Interrupted after Ctrl-C with everything finished on disk.
StudyResults run_study(const Spec& spec, const RunnerOptions& options);

}  // namespace nibble::study
