// A vocabulary: pieces by id and ids by piece. Ids may have holes. Built once and then only read.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nibble::text {

class Vocab {
 public:
  // Errors: Error{where} for a negative id, one beyond kMaxId or far beyond the number of pieces. Of two
  // pieces with one id the later one is spelled, both are found.
  void build(const std::vector<std::pair<std::string, int32_t>>& pieces, std::string_view where);

  // -1 when the piece is not in it.
  int32_t find(std::string_view piece) const;
  // Empty for a hole or an id outside; see contains().
  std::string_view piece(int32_t id) const;
  bool contains(int32_t id) const { return id >= 0 && id < size() && known_[static_cast<size_t>(id)]; }
  // Largest id + 1.
  int32_t size() const { return static_cast<int32_t>(known_.size()); }
  size_t longest_piece() const { return longest_; }

  static constexpr int32_t kMaxId = 1 << 26;

 private:
  struct Entry {
    uint32_t begin = 0, length = 0;
  };
  struct Slot {
    uint32_t tag = 0;
    int32_t id = -1;
    Entry text;
  };
  std::string_view view(Entry e) const { return std::string_view(blob_).substr(e.begin, e.length); }

  std::string blob_;
  std::vector<Entry> by_id_;
  std::vector<bool> known_;
  std::vector<Slot> slots_;
  size_t longest_ = 0;
};

}  // namespace nibble::text
