#include "base/parallel.h"

#include <sched.h>
#include <strings.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <thread>

#include "base/error.h"

namespace nibble {
namespace {

using Body = std::function<void(int64_t, int64_t)>;

std::atomic<int> g_threads{0};
thread_local bool t_inside = false;  // a chunk of some loop runs in this thread

// Processors this process may run on.
int processors() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0)
    return static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  return std::max(1, CPU_COUNT(&set));
}

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Looks that a waiting thread takes before it sleeps: about 100 µs, longer than what lies between two loops
// of a token.
int looks_before_sleep() {
  static const int looks = [] {
    const char* policy = std::getenv("OMP_WAIT_POLICY");
    return policy != nullptr && ::strcasecmp(policy, "passive") == 0 ? 0 : 4000;
  }();
  return looks;
}

// One loop: chunks are taken in order by whoever is free.
struct Loop {
  const Body* body = nullptr;
  int64_t n = 0, grain = 1, chunks = 0;
  std::atomic<int64_t> next{0};
  std::mutex mutex;  // of what follows
  std::exception_ptr first;
  int64_t first_chunk = 0;

  void work() {
    t_inside = true;
    for (int64_t c; (c = next.fetch_add(1, std::memory_order_relaxed)) < chunks;) {
      try {
        (*body)(c * grain, std::min(n, (c + 1) * grain));
      } catch (...) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (!first || c < first_chunk) {
          first_chunk = c;
          first = std::current_exception();
        }
      }
    }
    t_inside = false;
  }
};

// Threads that wait for loops. A loop is announced by a new ticket, which also says how many helpers it has:
// those beyond never look at it. They spin for a while, since a loop of generation lasts a few microseconds,
// and then sleep. A helper that comes when no chunk is left is not waited for: on a machine with other work
// to do it may take milliseconds to be given a processor.
class Pool {
 public:
  // With `team` threads, the calling one included; false when another thread's loop is running.
  bool run(Loop& loop, int team) {
    const std::unique_lock<std::mutex> one_at_a_time(busy_, std::try_to_lock);
    if (!one_at_a_time.owns_lock()) return false;
    for (; helpers_ < static_cast<uint32_t>(team - 1); ++helpers_)
      std::thread([this, index = helpers_, seen = ticket_.load()] { help(index, seen); }).detach();
    loop_ = &loop;
    left_.store(0, std::memory_order_relaxed);
    announce(static_cast<uint32_t>(team - 1));
    loop.work();
    const uint64_t entered = door_.fetch_or(kClosed, std::memory_order_acq_rel) & (kClosed - 1);
    for (int looks = 0; left_.load(std::memory_order_acquire) != entered; ++looks)
      looks < looks_before_sleep() + 100 ? relax() : std::this_thread::yield();
    return true;
  }

 private:
  static constexpr uint32_t kHelpers = 1024;  // threads() is at most that
  static constexpr uint64_t kClosed = uint64_t{1} << 31;

  void announce(uint32_t helpers) {
    const uint32_t ticket = ticket_.load(std::memory_order_relaxed);
    const uint32_t next = (ticket / kHelpers + 1) * kHelpers + helpers;
    door_.store(uint64_t{next} << 32, std::memory_order_release);
    ticket_.store(next);
    if (sleepers_.load() == 0) return;
    const std::lock_guard<std::mutex> lock(sleep_);
    wake_.notify_all();
  }

  uint32_t next_ticket(uint32_t seen) {
    for (int looks = looks_before_sleep(); looks > 0; --looks) {
      const uint32_t ticket = ticket_.load(std::memory_order_acquire);
      if (ticket != seen) return ticket;
      relax();
    }
    std::unique_lock<std::mutex> lock(sleep_);
    ++sleepers_;
    wake_.wait(lock, [&] { return ticket_.load() != seen; });
    --sleepers_;
    return ticket_.load();
  }

  // From here on the loop of that ticket waits for the caller; false when it is over.
  bool enter(uint32_t ticket) {
    uint64_t door = door_.load(std::memory_order_acquire);
    do
      if (door >> 32 != ticket || (door & kClosed) != 0) return false;
    while (
        !door_.compare_exchange_weak(door, door + 1, std::memory_order_acq_rel, std::memory_order_acquire));
    return true;
  }

  [[noreturn]] void help(uint32_t index, uint32_t seen) {
    while (true) {
      seen = next_ticket(seen);
      if (index >= seen % kHelpers || !enter(seen)) continue;
      loop_->work();
      left_.fetch_add(1, std::memory_order_release);
    }
  }

  std::mutex busy_;
  uint32_t helpers_ = 0;
  Loop* loop_ = nullptr;
  alignas(64) std::atomic<uint32_t> ticket_{0};
  alignas(64) std::atomic<uint64_t> door_{
      0};  // ticket · 2³² + kClosed once the loop is over + helpers that entered
  alignas(64) std::atomic<uint64_t> left_{0};  // of those, how many are through
  alignas(64) std::atomic<int> sleepers_{0};
  std::mutex sleep_;
  std::condition_variable wake_;
};

// Lives as long as its threads: to the end of the process.
Pool& pool() {
  static Pool* p = new Pool;
  return *p;
}

}  // namespace

void set_threads(int count) {
  require(count >= 0 && count <= 1024, "threads", "expected 0 (all processors) to 1024 threads, got {}",
          count);
  g_threads = count == 0 ? processors() : count;
}

int threads() {
  if (g_threads == 0) g_threads = processors();
  return g_threads;
}

void parallel_for(int64_t n, int64_t grain, const Body& body) {
  if (n <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  Loop loop;
  loop.body = &body;
  loop.n = n;
  loop.grain = grain;
  loop.chunks = (n + grain - 1) / grain;
  const int team = static_cast<int>(std::min<int64_t>(threads(), loop.chunks));
  if (team <= 1 || t_inside || !pool().run(loop, team)) {
    for (int64_t c = 0; c < loop.chunks; ++c) body(c * grain, std::min(n, (c + 1) * grain));
    return;
  }
  if (loop.first) std::rethrow_exception(loop.first);
}

}  // namespace nibble
