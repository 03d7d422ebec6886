// Where optimizer state lives: all of it in memory, or in a file of which a bounded part is in memory at a
// time.
//
// On a CPU there is no managed memory, so paging is explicit: an update is one pass over fixed pages; while
// one page is updated, the next is read and the last is written by a thread of its own (three page buffers).
// The bytes that an update sees are the same either way. Source of the idea: Dettmers et al. 2023, section 3
// ("paged optimizers").
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "tensor/tensor.h"

namespace nibble::train {

class StateStore {
 public:
  virtual ~StateStore() = default;
  // Every page in order, in memory while `body` has it; what `body` changed is kept. Freshly made state is
  // zero.
  virtual void pass(const std::function<void(int64_t page, const std::shared_ptr<Buffer>& memory)>& body) = 0;
  // Any part of the state, by its offset (page · page_bytes + place in the page); between passes.
  virtual void read(int64_t offset, std::span<std::byte> out) = 0;
  virtual void write(int64_t offset, std::span<const std::byte> bytes) = 0;
};

// All pages in memory (one allocation named "optimizer state").
std::unique_ptr<StateStore> make_resident_store(Allocator& allocator, int64_t pages, int64_t page_bytes);

// Pages in a file at `path`, unlinked at once so that nothing is left behind however the process ends; its
// disk space is reserved here. Holds kPageBuffers pages of memory. Errors: Error{path}: no space, unwritable;
// a failed read or write during a pass.
inline constexpr int64_t kPageBuffers = 3;
std::unique_ptr<StateStore> make_paged_store(Allocator& allocator, const std::string& path, int64_t pages,
                                             int64_t page_bytes);

}  // namespace nibble::train
