#include "base/parallel.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>

#include "base/error.h"

namespace nibble {
namespace {
std::atomic<int> g_threads{0};
}

void set_threads(int count) {
  require(count >= 0 && count <= 1024, "threads", "expected 0 (all processors) to 1024 threads, got {}", count);
  g_threads = count == 0 ? omp_get_num_procs() : count;
}

int threads() {
  if (g_threads == 0) g_threads = omp_get_num_procs();
  return g_threads;
}

void parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  if (n <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  const int64_t chunks = (n + grain - 1) / grain;
  const int team = static_cast<int>(std::min<int64_t>(threads(), chunks));
  if (team <= 1 || omp_in_parallel()) {
    for (int64_t c = 0; c < chunks; ++c) body(c * grain, std::min(n, (c + 1) * grain));
    return;
  }
  std::mutex mutex;
  std::exception_ptr first;
  int64_t first_chunk = chunks;
#pragma omp parallel for num_threads(team) schedule(dynamic, 1)
  for (int64_t c = 0; c < chunks; ++c) {
    try {
      body(c * grain, std::min(n, (c + 1) * grain));
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex);
      if (c < first_chunk) {
        first_chunk = c;
        first = std::current_exception();
      }
    }
  }
  if (first) std::rethrow_exception(first);
}

}  // namespace nibble
