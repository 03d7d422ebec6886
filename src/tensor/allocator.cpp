#include "tensor/allocator.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <new>
#include <unordered_map>

#include "base/error.h"
#include "base/process.h"
#include "base/text.h"

namespace nibble {
namespace {

constexpr size_t kAlign = 64;
// From here on blocks lie on huge pages where the system has them: fewer faults at first touch and fewer
// misses of the translation cache in products.
constexpr size_t kHugePage = size_t{2} << 20, kHugeFrom = size_t{4} << 20;
size_t round_up(size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

// Blocks that went out of use, by size. What repeats its requests finds all of them here; where sizes keep
// changing (a cache for each batch of questions) what is kept is let go once it is much. Of small ones, which
// a token of generation asks for by the hundred, each size has a list of its own.
class BlockCache {
 public:
  ~BlockCache() { release(); }
  // bytes: a multiple of kAlign.
  void* take(size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (bytes < kSmall) {
      auto& blocks = small_[bytes / kAlign];
      if (blocks.empty()) return fresh(bytes);
      void* p = blocks.back();
      blocks.pop_back();
      return p;
    }
    // A block up to an eighth larger than asked for will do.
    const auto it = free_.lower_bound(bytes);
    if (it != free_.end() && it->first <= bytes + bytes / 8) {
      void* p = it->second.back();
      size_of_[p] = it->first;
      it->second.pop_back();
      kept_ -= it->first;
      if (it->second.empty()) free_.erase(it);
      return p;
    }
    if (kept_ > kMostKept) release();
    void* p = fresh(bytes);
    if (p != nullptr) size_of_[p] = bytes;
    return p;
  }
  void give(void* p, size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (bytes < kSmall) {
      auto& blocks = small_[bytes / kAlign];
      blocks.size() < kSmallKept ? blocks.push_back(p) : std::free(p);
      return;
    }
    const auto it = size_of_.find(p);
    free_[it->second].push_back(p);
    kept_ += it->second;
    size_of_.erase(it);
  }
  void drop() {
    const std::lock_guard<std::mutex> lock(mutex_);
    release();
  }

 private:
  void release() {
    for (auto& [size, blocks] : free_)
      for (void* p : blocks) std::free(p);
    free_.clear();
    kept_ = 0;
    for (auto& blocks : small_) {
      for (void* p : blocks) std::free(p);
      blocks.clear();
    }
  }
  static void* fresh(size_t bytes) {
    if (bytes < kHugeFrom) return std::aligned_alloc(kAlign, std::max(bytes, kAlign));
    const size_t whole = (bytes + kHugePage - 1) / kHugePage * kHugePage;
    if (whole < bytes) return nullptr;
    void* p = std::aligned_alloc(kHugePage, whole);
#ifdef MADV_HUGEPAGE
    if (p != nullptr) ::madvise(p, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
    return p;
  }

  static constexpr size_t kSmall = 4096, kSmallKept = 64, kMostKept = size_t{256} << 20;
  std::array<std::vector<void*>, kSmall / kAlign> small_;
  size_t kept_ = 0;
  std::mutex mutex_;
  std::map<size_t, std::vector<void*>> free_;
  std::unordered_map<void*, size_t> size_of_;
};

class HostAllocator : public Allocator {
 public:
  std::shared_ptr<Buffer> allocate(size_t bytes, std::string_view name) override {
    const size_t size = round_up(bytes);
    void* p = cache_->take(size);
    if (p == nullptr) {
      cache_->drop();
      p = cache_->take(size);
    }
    if (p == nullptr)
      fail("memory",
           "cannot allocate {} for {}; use a smaller batch, max_seq_length or gradient_checkpointing: block",
           show_bytes(static_cast<double>(bytes)), name);
    auto* buffer = new Buffer{static_cast<std::byte*>(p), bytes, Device::kCpu, nullptr};
    const Ledger::Ticket ticket = ledger_->on_allocate(name, size);
    return {buffer, [cache = cache_, ledger = ledger_, ticket, size](Buffer* b) {
              cache->give(b->data, size);
              ledger->on_release(ticket);
              delete b;
            }};
  }
  Device device() const override { return Device::kCpu; }
  void trim() override {
    cache_->drop();
    release_free_memory();
  }

 private:
  std::shared_ptr<BlockCache> cache_ = std::make_shared<BlockCache>();
};

class MetaAllocator : public Allocator {
 public:
  std::shared_ptr<Buffer> allocate(size_t bytes, std::string_view name) override {
    const Ledger::Ticket ticket = ledger_->on_allocate(name, round_up(bytes));
    return {new Buffer{nullptr, bytes, Device::kMeta, nullptr}, [ledger = ledger_, ticket](Buffer* b) {
              ledger->on_release(ticket);
              delete b;
            }};
  }
  Device device() const override { return Device::kMeta; }
};

}  // namespace

Ledger::Named& Ledger::named(std::string_view name) {
  const size_t group = current_group_.back();
  const auto at = reinterpret_cast<uintptr_t>(name.data());
  Recent& recent = recent_[(at ^ at >> 8 ^ group * 31) % recent_.size()];
  // The same place may hold another name by now.
  if (recent.at != name.data() || recent.group != group || recent.found->first != name) {
    auto& names = groups_[group].named;
    auto it = names.find(name);
    if (it == names.end()) it = names.emplace(name, Named{}).first;
    recent = {name.data(), group, &*it};
  }
  return recent.found->second;
}

Ledger::Ticket Ledger::on_allocate(std::string_view name, size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto n = static_cast<int64_t>(bytes);
  Named& entry = named(name);
  const Ticket ticket{next_id_++, n, current_group_.back(), &entry.now};
  groups_[ticket.group].now += n;
  entry.now += n;
  entry.peak = std::max(entry.peak, entry.now);
  current_ += n;
  if (current_ > peak_) {
    peak_ = current_;
    for (Group& group : groups_) group.at_peak = group.now;
  }
  if (recording_from_ >= 0) events_.push_back({ticket.id - recording_from_, n, false});
  return ticket;
}

void Ledger::on_release(const Ticket& ticket) {
  const std::lock_guard<std::mutex> lock(mutex_);
  current_ -= ticket.bytes;
  groups_[ticket.group].now -= ticket.bytes;
  *ticket.named -= ticket.bytes;
  if (recording_from_ >= 0 && ticket.id >= recording_from_)
    events_.push_back({ticket.id - recording_from_, ticket.bytes, true});
}

std::map<std::string, int64_t> Ledger::groups_at_peak() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::map<std::string, int64_t> bytes;
  for (const Group& group : groups_)
    if (!group.named.empty()) bytes[group.name] = group.at_peak;
  return bytes;
}

std::map<std::pair<std::string, std::string>, int64_t> Ledger::names_peak() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::map<std::pair<std::string, std::string>, int64_t> peaks;
  for (const Group& group : groups_)
    for (const auto& [name, value] : group.named) peaks[{group.name, name}] = value.peak;
  return peaks;
}

void Ledger::reset_peak() {
  const std::lock_guard<std::mutex> lock(mutex_);
  peak_ = current_;
  for (Group& group : groups_) {
    group.at_peak = group.now;
    for (auto& [name, value] : group.named) value.peak = value.now;
  }
}

void Ledger::start_recording() {
  const std::lock_guard<std::mutex> lock(mutex_);
  recording_from_ = next_id_;
  events_.clear();
}

std::vector<Ledger::Event> Ledger::stop_recording() {
  const std::lock_guard<std::mutex> lock(mutex_);
  recording_from_ = -1;
  return std::move(events_);
}

void Ledger::push_group(std::string_view group) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto known =
      std::find_if(groups_.begin(), groups_.end(), [&](const Group& g) { return g.name == group; });
  current_group_.push_back(static_cast<size_t>(known - groups_.begin()));
  if (known == groups_.end()) groups_.push_back({std::string(group), {}});
}

void Ledger::pop_group() {
  const std::lock_guard<std::mutex> lock(mutex_);
  current_group_.pop_back();
}

std::shared_ptr<Allocator> make_host_allocator() { return std::make_shared<HostAllocator>(); }
std::shared_ptr<Allocator> make_meta_allocator() { return std::make_shared<MetaAllocator>(); }

std::shared_ptr<Buffer> borrow_buffer(const void* data, size_t bytes, std::shared_ptr<const void> owner) {
  return std::make_shared<Buffer>(
      Buffer{static_cast<std::byte*>(const_cast<void*>(data)), bytes, Device::kCpu, std::move(owner)});
}

Allocator& host_allocator() {
  static const std::shared_ptr<Allocator> allocator = make_host_allocator();
  return *allocator;
}

ArenaPlan plan_arena(const std::vector<Ledger::Event>& events) {
  struct Block {
    int64_t id, bytes, begin, end;
  };  // alive in [begin, end) of event time
  std::vector<Block> blocks;
  for (size_t t = 0; t < events.size(); ++t) {
    const auto& e = events[t];
    if (!e.release) {
      blocks.push_back({e.id, e.bytes, static_cast<int64_t>(t), static_cast<int64_t>(events.size())});
    } else {
      blocks[static_cast<size_t>(e.id)].end = static_cast<int64_t>(t);
    }
  }
  ArenaPlan plan;
  plan.offsets.assign(blocks.size(), 0);
  for (const Block& b : blocks) plan.sizes.push_back(b.bytes);
  // Greedy by size: the largest first, each at the lowest offset where no placed neighbour in time overlaps.
  std::vector<size_t> order(blocks.size()), placed;
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return blocks[a].bytes > blocks[b].bytes; });
  for (const size_t i : order) {
    if (blocks[i].bytes == 0) continue;
    std::vector<std::pair<int64_t, int64_t>> taken;
    for (const size_t j : placed)
      if (blocks[j].begin < blocks[i].end && blocks[i].begin < blocks[j].end)
        taken.emplace_back(plan.offsets[j], plan.offsets[j] + blocks[j].bytes);
    std::sort(taken.begin(), taken.end());
    int64_t offset = 0;
    for (const auto& [from, to] : taken) {
      if (from - offset >= blocks[i].bytes) break;
      offset = std::max(offset, to);
    }
    plan.offsets[i] = offset;
    plan.bytes = std::max(plan.bytes, offset + blocks[i].bytes);
    placed.push_back(i);
  }
  return plan;
}

ArenaAllocator::ArenaAllocator(ArenaPlan plan, Allocator& parent)
    : plan_(std::move(plan)), block_(parent.allocate(static_cast<size_t>(plan_.bytes), "arena")) {}

void ArenaAllocator::begin_step() { next_ = 0; }

std::shared_ptr<Buffer> ArenaAllocator::allocate(size_t bytes, std::string_view name) {
  const auto size = static_cast<int64_t>(round_up(bytes));
  require(next_ < plan_.sizes.size(), "arena",
          "{} of {} bytes comes after the last of {} planned allocations", name, size, plan_.sizes.size());
  require(plan_.sizes[next_] >= size, "arena",
          "{} asks for {} bytes where the plan has {}: this step is not the planned one", name, size,
          plan_.sizes[next_]);
  std::byte* at = block_->data == nullptr ? nullptr : block_->data + plan_.offsets[next_];
  ++next_;
  return std::make_shared<Buffer>(Buffer{at, bytes, block_->device, block_});
}

}  // namespace nibble
