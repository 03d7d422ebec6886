#include "train/paging.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "base/text.h"

namespace nibble::train {
namespace {

class ResidentStore : public StateStore {
 public:
  ResidentStore(Allocator& allocator, int64_t pages, int64_t page_bytes)
      : pages_(pages),
        page_bytes_(page_bytes),
        memory_(allocator.allocate(static_cast<size_t>(pages * page_bytes), "optimizer state")) {
    if (memory_->data != nullptr) std::memset(memory_->data, 0, memory_->bytes);
  }
  void pass(const std::function<void(int64_t, const std::shared_ptr<Buffer>&)>& body) override {
    for (int64_t page = 0; page < pages_; ++page)
      body(page,
           borrow_buffer(memory_->data + page * page_bytes_, static_cast<size_t>(page_bytes_), memory_));
  }
  void read(int64_t offset, std::span<std::byte> out) override {
    std::memcpy(out.data(), memory_->data + offset, out.size());
  }
  void write(int64_t offset, std::span<const std::byte> bytes) override {
    std::memcpy(memory_->data + offset, bytes.data(), bytes.size());
  }

 private:
  int64_t pages_, page_bytes_;
  std::shared_ptr<Buffer> memory_;
};

// Runs jobs one after another in a thread of its own.
class Worker {
 public:
  Worker() : thread_([this] { run(); }) {}
  ~Worker() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  // The number of the job, to wait for.
  int64_t push(std::function<void()> job) {
    int64_t number = 0;
    {
      const std::lock_guard lock(mutex_);
      jobs_.push_back(std::move(job));
      number = ++pushed_;
    }
    changed_.notify_all();
    return number;
  }
  // Errors: what the first failed job threw.
  void wait(int64_t number) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return done_ >= number; });
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }
  void wait_all() { wait(pushed_); }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] { return stop_ || !jobs_.empty(); });
      if (jobs_.empty()) return;
      const std::function<void()> job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      std::exception_ptr error;
      try {
        job();
      } catch (...) {
        error = std::current_exception();
      }
      lock.lock();
      if (error && !error_) error_ = error;
      ++done_;
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  int64_t pushed_ = 0, done_ = 0;
  bool stop_ = false;
  std::exception_ptr error_;
  std::thread thread_;
};

class PagedStore : public StateStore {
 public:
  PagedStore(Allocator& allocator, const std::string& path, int64_t pages, int64_t page_bytes)
      : path_(path), pages_(pages), page_bytes_(page_bytes) {
    for (auto& buffer : buffers_)
      buffer = allocator.allocate(static_cast<size_t>(page_bytes), "optimizer page");
    fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    require(fd_ >= 0, path, "cannot make the file of the paged optimizer: {}", std::strerror(errno));
    ::unlink(path.c_str());
    int error = 0;
    do error = ::posix_fallocate(fd_, 0, pages * page_bytes);
    while (error == EINTR);
    if (error != 0) {
      ::close(fd_);
      fail(path,
           "cannot reserve {} for the state of the paged optimizer: {}; free some disk or take optim: "
           "adamw_8bit",
           show_bytes(static_cast<double>(pages * page_bytes)), std::strerror(error));
    }
  }
  ~PagedStore() override {
    worker_.reset();  // its jobs use the file
    ::close(fd_);
  }

  void pass(const std::function<void(int64_t, const std::shared_ptr<Buffer>&)>& body) override {
    // Jobs run in the order read 0, read 1, write 0, read 2, write 1, read 3 …: page i + 3 is read into the
    // buffer of page i only after that was written.
    if (!worker_) worker_ = std::make_unique<Worker>();
    try {
      int64_t read_next = push_read(0);
      for (int64_t page = 0; page < pages_; ++page) {
        const int64_t read_this = read_next;
        if (page + 1 < pages_) read_next = push_read(page + 1);
        worker_->wait(read_this);
        body(page, buffer(page));
        worker_->push([this, page] { write(page * page_bytes_, contents(page)); });
      }
      worker_->wait_all();
    } catch (...) {
      worker_.reset();  // nothing may touch the buffers once the caller knows of the failure
      throw;
    }
  }

  void read(int64_t offset, std::span<std::byte> out) override {
    size_t done = 0;
    while (done < out.size()) {
      const ssize_t n =
          ::pread(fd_, out.data() + done, out.size() - done, offset + static_cast<int64_t>(done));
      if (n < 0 && errno == EINTR) continue;
      require(n > 0, path_, "cannot read optimizer state: {}",
              n == 0 ? "the file is too short" : std::strerror(errno));
      done += static_cast<size_t>(n);
    }
  }
  void write(int64_t offset, std::span<const std::byte> bytes) override {
    size_t done = 0;
    while (done < bytes.size()) {
      const ssize_t n =
          ::pwrite(fd_, bytes.data() + done, bytes.size() - done, offset + static_cast<int64_t>(done));
      if (n < 0 && errno == EINTR) continue;
      require(n > 0, path_, "cannot write optimizer state: {}", std::strerror(errno));
      done += static_cast<size_t>(n);
    }
  }

 private:
  const std::shared_ptr<Buffer>& buffer(int64_t page) const {
    return buffers_[static_cast<size_t>(page % kPageBuffers)];
  }
  std::span<std::byte> contents(int64_t page) const {
    return {buffer(page)->data, static_cast<size_t>(page_bytes_)};
  }
  int64_t push_read(int64_t page) {
    return worker_->push([this, page] { read(page * page_bytes_, contents(page)); });
  }

  std::string path_;
  int64_t pages_, page_bytes_;
  int fd_ = -1;
  std::shared_ptr<Buffer> buffers_[kPageBuffers];
  std::unique_ptr<Worker> worker_;
};

}  // namespace

std::unique_ptr<StateStore> make_resident_store(Allocator& allocator, int64_t pages, int64_t page_bytes) {
  return std::make_unique<ResidentStore>(allocator, pages, page_bytes);
}

std::unique_ptr<StateStore> make_paged_store(Allocator& allocator, const std::string& path, int64_t pages,
                                             int64_t page_bytes) {
  return std::make_unique<PagedStore>(allocator, path, pages, page_bytes);
}

}  // namespace nibble::train
