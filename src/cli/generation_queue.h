// Answers asked for by many threads and written by one: generation is not concurrent, and the threads of its
// loops belong to whoever calls serve().
#pragma once
#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "eval/generate.h"

namespace nibble::cli {

struct GenerationJob {
  size_t model = 0;  // which of the server's models
  std::vector<int32_t> prompt;
  eval::GenerateOptions options;
  std::atomic<bool> cancelled = false;  // the client went away

  // What has come since the last call; waits up to 100 ms for something. False: nothing more will come.
  bool take(std::string& text);
  bool done();
  // After done(): the answer, or what went wrong.
  eval::Generated result;
  std::string error;

  void put(std::string_view text);
  void finish(eval::Generated generated, std::string what);

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string text_;
  bool done_ = false;
};

class GenerationQueue {
 public:
  explicit GenerationQueue(size_t most) : most_(most) {}
  // False: too many wait already, or the queue is closed.
  bool push(std::shared_ptr<GenerationJob> job);
  // The next job; null after up to 100 ms without one.
  std::shared_ptr<GenerationJob> pop();
  // Ends what waits (as cancelled) and takes nothing more.
  void close();

 private:
  size_t most_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<GenerationJob>> jobs_;
  bool closed_ = false;
};

}  // namespace nibble::cli
