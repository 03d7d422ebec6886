// Where kernels run: the device and what one stream of work on it shares.
#pragma once
#include "tensor/tensor.h"

namespace nibble::backend {

// Scratch is memory that is only used inside one kernel call or between acquire and release of one weight; it
// grows to the largest request and is shared by all of them.
class Stream {
 public:
  explicit Stream(Allocator& allocator) : allocator_(allocator) {}
  Device device() const { return allocator_.device(); }
  Allocator& allocator() { return allocator_; }
  // At least `bytes`, 64-byte aligned; valid until the next request for the same slot. Null on the meta
  // device.
  std::byte* scratch(int slot, size_t bytes);

  static constexpr int kWeightSlot = 0;  // decoded weights
  static constexpr int kKernelSlot = 1;  // inside a kernel (operand conversion)
  static constexpr int kKernelSlot2 = 2;
  static constexpr int kPartialSlot = 3;  // partial sums of fixed reduction trees
  static constexpr int kSlots = 4;

 private:
  Allocator& allocator_;
  std::shared_ptr<Buffer> slots_[kSlots];
};

}  // namespace nibble::backend
