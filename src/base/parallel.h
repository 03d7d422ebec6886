// Threads for loops: a pool of their own, which waits awake for a tenth of a millisecond (with
// OMP_WAIT_POLICY=passive not at all) and lets a loop from a second thread run in that thread. Results never
// depend on the number of threads: chunk borders depend on n and grain alone, and whoever reduces does it per
// chunk and then over the chunks in order (see reduce.h).
#pragma once
#include <cstdint>
#include <functional>

namespace nibble {

// Number of threads parallel_for uses; 0 asks for one per processor this process may run on. Default: that.
void set_threads(int count);
int threads();

// Calls body(begin, end) for [0, grain), [grain, 2 grain), … up to n, in any order and concurrently. Nested
// calls run in the calling thread. The exception of the lowest chunk that threw is thrown again here.
void parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t begin, int64_t end)>& body);

}  // namespace nibble
