// Host memory with guard words: every block lies between two runs of a known pattern, and starts out as NaNs,
// so that a write outside it is found and a read of what nobody wrote shows in the result.
#pragma once
#include <cstdlib>
#include <cstring>
#include <string>

#include "tensor/allocator.h"

namespace nibble::ops::test {

class GuardedAllocator : public Allocator {
 public:
  std::shared_ptr<Buffer> allocate(size_t bytes, std::string_view name) override {
    const size_t size = (bytes + 63) / 64 * 64;
    auto* block = static_cast<std::byte*>(std::aligned_alloc(64, size + 2 * kGuard));
    std::memset(block, kPattern, kGuard);
    std::memset(block + kGuard, 0xFF, bytes);
    std::memset(block + kGuard + bytes, kPattern, size - bytes + kGuard);
    const Ledger::Ticket id = ledger_->on_allocate(name, size);
    return {new Buffer{block + kGuard, bytes, Device::kCpu, nullptr},
            [violations = violations_, ledger = ledger_, block, bytes, size, id,
             label = std::string(name)](Buffer* b) {
              for (size_t i = 0; i < size + 2 * kGuard; ++i) {
                const bool inside = i >= kGuard && i < kGuard + bytes;
                if (inside || block[i] == std::byte{kPattern}) continue;
                *violations +=
                    label + (i < kGuard ? " written before its start; " : " written past its end; ");
                break;
              }
              ledger->on_release(id);
              std::free(block);
              delete b;
            }};
  }
  Device device() const override { return Device::kCpu; }
  // Empty when every block released so far is intact.
  const std::string& violations() const { return *violations_; }

 private:
  static constexpr size_t kGuard = 64;
  static constexpr unsigned char kPattern = 0xA5;
  std::shared_ptr<std::string> violations_ = std::make_shared<std::string>();
};

}  // namespace nibble::ops::test
