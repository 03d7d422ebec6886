// Memory of one thread for one kernel: grows to the largest request. Tile sizes bound it to some MB, but for
// attention's backward, where it holds a head's keys (workspace.cpp counts it).
#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <new>

namespace nibble::backend::cpu {

enum class LocalSlot { kA, kB, kC, kD, kE };
using LocalCounts = std::array<int64_t, 5>;  // floats by slot

struct LocalPiece {
  struct Free {
    void operator()(float* p) const { ::operator delete(p, std::align_val_t(64)); }
  };
  std::unique_ptr<float, Free> data;
  int64_t count = 0;
};
inline std::array<LocalPiece, std::tuple_size_v<LocalCounts>>& local_pieces() {
  thread_local std::array<LocalPiece, std::tuple_size_v<LocalCounts>> pieces;
  return pieces;
}

// At least `count` floats, 64-byte aligned, contents undefined; valid until this thread asks for the same
// slot again.
inline float* local_buffer(LocalSlot slot, int64_t count) {
  LocalPiece& piece = local_pieces()[static_cast<size_t>(slot)];
  if (piece.count < count) {
    piece.data.reset();
    piece.data.reset(
        static_cast<float*>(::operator new(static_cast<size_t>(count) * 4, std::align_val_t(64))));
    piece.count = count;
  }
  return piece.data.get();
}

}  // namespace nibble::backend::cpu
