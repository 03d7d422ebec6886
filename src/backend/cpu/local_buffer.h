// Memory of one thread for one kernel: grows to the largest request, which tile sizes bound to a few hundred
// kB.
#pragma once
#include <cstdint>
#include <memory>
#include <new>

namespace nibble::backend::cpu {

enum class LocalSlot { kA, kB, kC, kD, kE, kCount };

// At least `count` floats, 64-byte aligned, contents undefined; valid until this thread asks for the same
// slot again.
inline float* local_buffer(LocalSlot slot, int64_t count) {
  struct Free {
    void operator()(float* p) const { ::operator delete(p, std::align_val_t(64)); }
  };
  struct Piece {
    std::unique_ptr<float, Free> data;
    int64_t count = 0;
  };
  thread_local Piece pieces[static_cast<int>(LocalSlot::kCount)];
  Piece& piece = pieces[static_cast<int>(slot)];
  if (piece.count < count) {
    piece.data.reset();
    piece.data.reset(
        static_cast<float*>(::operator new(static_cast<size_t>(count) * 4, std::align_val_t(64))));
    piece.count = count;
  }
  return piece.data.get();
}

}  // namespace nibble::backend::cpu
