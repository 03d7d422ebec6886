// What the machine can do, measured while other things happen.
#include "backend/limits.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <thread>

namespace nibble::backend {
namespace {

std::atomic<int> g_signals{0};
extern "C" void count_signal(int) { ++g_signals; }

// oneDNN's products of AVX-512 use the stack's register for something else.
TEST(Limits, SignalsDuringProductsDoNoHarm) {
  struct sigaction action {
  }, before{};
  action.sa_handler = count_signal;
  action.sa_flags = SA_RESTART;
  ASSERT_EQ(::sigaction(SIGUSR1, &action, &before), 0);
  std::atomic<bool> over{false};
  std::thread sender([&] {
    sigset_t own;
    ::sigemptyset(&own);
    ::sigaddset(&own, SIGUSR1);
    ::pthread_sigmask(SIG_BLOCK, &own, nullptr);
    while (!over) {
      ::kill(::getpid(), SIGUSR1);
      ::usleep(100);
    }
  });
  for (const DType compute : {kF32, kBF16})
    EXPECT_GT(product_limit_seconds({{192, 576, 576, 1}, {192, 1536, 576, 1}}, 9, compute), 0);
  over = true;
  sender.join();
  EXPECT_GT(g_signals, 0);
  ::sigaction(SIGUSR1, &before, nullptr);
}

}  // namespace
}  // namespace nibble::backend
