#include "cli/generation_queue.h"

#include <chrono>

namespace nibble::cli {

using std::chrono::milliseconds;

bool GenerationJob::take(std::string& text) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, milliseconds(100), [&] { return done_ || !text_.empty(); });
  text = std::move(text_);
  text_.clear();
  return !done_ || !text.empty();
}

bool GenerationJob::done() {
  const std::lock_guard lock(mutex_);
  return done_;
}

void GenerationJob::put(std::string_view text) {
  {
    const std::lock_guard lock(mutex_);
    text_ += text;
  }
  changed_.notify_all();
}

void GenerationJob::finish(eval::Generated generated, std::string what) {
  {
    const std::lock_guard lock(mutex_);
    result = std::move(generated);
    error = std::move(what);
    done_ = true;
  }
  changed_.notify_all();
}

bool GenerationQueue::push(std::shared_ptr<GenerationJob> job) {
  {
    const std::lock_guard lock(mutex_);
    if (closed_ || jobs_.size() >= most_) return false;
    jobs_.push_back(std::move(job));
  }
  changed_.notify_one();
  return true;
}

std::shared_ptr<GenerationJob> GenerationQueue::pop() {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, milliseconds(100), [&] { return !jobs_.empty(); });
  if (jobs_.empty()) return nullptr;
  auto job = std::move(jobs_.front());
  jobs_.pop_front();
  return job;
}

void GenerationQueue::close() {
  std::deque<std::shared_ptr<GenerationJob>> left;
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
    left.swap(jobs_);
  }
  for (const auto& job : left) job->finish({}, "the server is shutting down");
}

}  // namespace nibble::cli
