// Memory for tensors: where it lives, what it is called, how much of it there is at any time.
//
// Every allocation has a name ("rms_norm.y") and falls into the group that is current when it is made
// ("activations"); a Ledger keeps the sums. The meta allocator hands out no memory at all, so a step run on
// the meta device leaves exactly the record that the real one will leave: the memory table, and the offsets
// of the arena that serves it. Threading: one thread allocates at a time (kernels never allocate); release
// may come from any thread.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

enum class Device : uint8_t { kCpu, kCuda, kMeta };
constexpr const char* device_name(Device d) {
  return d == Device::kCpu ? "cpu" : d == Device::kCuda ? "cuda" : "meta";
}

// Owns (or borrows, see borrow()) a run of bytes; 64-byte aligned when an allocator made it.
struct Buffer {
  std::byte* data = nullptr;  // null on the meta device
  size_t bytes = 0;
  Device device = Device::kCpu;
  std::shared_ptr<const void> owner;  // what keeps the memory alive
};

// Bytes in use and their highest mark, per group. One event per allocation and release, in order, when
// recording.
class Ledger {
 public:
  struct Event {
    int64_t id;
    int64_t bytes;
    bool release;
  };
  // What an allocation is known by until its release.
  struct Ticket {
    int64_t id, bytes;
    size_t group;
    int64_t* named;  // bytes in use under its group and name
  };

  Ticket on_allocate(std::string_view name, size_t bytes);
  void on_release(const Ticket& ticket);

  int64_t current_bytes() const { return current_; }
  int64_t peak_bytes() const { return peak_; }
  // Bytes of each group at the moment of the peak, and of each (group, name) the highest mark of its own.
  std::map<std::string, int64_t> groups_at_peak() const;
  std::map<std::pair<std::string, std::string>, int64_t> names_peak() const;
  void reset_peak();

  // Recording: from start_recording() on, events are kept (ids count from 0).
  void start_recording();
  std::vector<Event> stop_recording();

  void push_group(std::string_view group);
  void pop_group();

 private:
  struct Named {
    int64_t now = 0, peak = 0;
  };
  struct Group {
    std::string name;
    std::map<std::string, Named, std::less<>> named;  // its nodes stay where they are
    int64_t now = 0, at_peak = 0;
  };
  // Names are literals, and a step asks for the same ones again: where one lies finds it without a search.
  struct Recent {
    const char* at = nullptr;
    size_t group = 0;
    std::pair<const std::string, Named>* found = nullptr;
  };
  Named& named(std::string_view name);

  mutable std::mutex mutex_;
  std::vector<Group> groups_{{"other", {}}};
  std::vector<size_t> current_group_{0};  // of groups_, the last one in force
  std::vector<Recent> recent_ = std::vector<Recent>(256);
  int64_t current_ = 0, peak_ = 0, next_id_ = 0, recording_from_ = -1;
  std::vector<Event> events_;
};

class Allocator {
 public:
  virtual ~Allocator() = default;
  // `bytes` may be 0. Errors: Error{"memory"} with name and size when there is not enough.
  virtual std::shared_ptr<Buffer> allocate(size_t bytes, std::string_view name) = 0;
  virtual Device device() const = 0;
  // Gives the system back what is kept for later requests: for after loading, whose blocks a step does not
  // ask for.
  virtual void trim() {}
  Ledger& ledger() { return *ledger_; }

 protected:
  std::shared_ptr<Ledger> ledger_ = std::make_shared<Ledger>();
};

// Names the group of the allocations made while it lives.
class MemoryGroup {
 public:
  MemoryGroup(Allocator& allocator, std::string_view group) : ledger_(allocator.ledger()) {
    ledger_.push_group(group);
  }
  ~MemoryGroup() { ledger_.pop_group(); }
  MemoryGroup(const MemoryGroup&) = delete;
  MemoryGroup& operator=(const MemoryGroup&) = delete;

 private:
  Ledger& ledger_;
};

// Host memory. Freed blocks are kept by size and handed out again, so that a steady state asks the system for
// nothing.
std::shared_ptr<Allocator> make_host_allocator();
// Shapes only.
std::shared_ptr<Allocator> make_meta_allocator();
// Sets a piece of memory that somebody else owns into a Buffer (a file mapping, a test's vector).
std::shared_ptr<Buffer> borrow_buffer(const void* data, size_t bytes, std::shared_ptr<const void> owner);
// The process-wide host allocator, for what lives outside any plan.
Allocator& host_allocator();

// One block for all allocations of a step. Made from the events that the step leaves on the meta device:
// offsets are assigned so that buffers alive at the same time never overlap.
struct ArenaPlan {
  std::vector<int64_t> offsets, sizes;  // per allocation, in order; sizes as asked for
  int64_t bytes = 0;                    // of the whole arena
};
ArenaPlan plan_arena(const std::vector<Ledger::Event>& events);

// Serves the planned sequence from one block; begin_step() starts it over. A step of fewer tokens than
// planned asks for less, which is fine; an allocation larger than planned or one too many is an
// Error{"arena"}: the step that runs is not the step that was planned.
class ArenaAllocator : public Allocator {
 public:
  ArenaAllocator(ArenaPlan plan, Allocator& parent);
  void begin_step();
  std::shared_ptr<Buffer> allocate(size_t bytes, std::string_view name) override;
  Device device() const override { return block_->device; }

 private:
  ArenaPlan plan_;
  std::shared_ptr<Buffer> block_;
  size_t next_ = 0;
};

}  // namespace nibble
