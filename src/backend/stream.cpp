#include "backend/stream.h"

namespace nibble::backend {

std::byte* Stream::scratch(int slot, size_t bytes) {
  auto& buffer = slots_[slot];
  if (!buffer || buffer->bytes < bytes) {
    buffer = nullptr;
    const MemoryGroup group(allocator_, "scratch");
    buffer = allocator_.allocate(bytes, "scratch");
  }
  return buffer->data;
}

}  // namespace nibble::backend
