#include "text/vocab.h"

#include <xxhash.h>

#include <algorithm>
#include <bit>

#include "base/error.h"

namespace nibble::text {

void Vocab::build(const std::vector<std::pair<std::string, int32_t>>& pieces, std::string_view where) {
  size_t bytes = 0;
  int32_t top = -1;
  for (const auto& [piece, id] : pieces) {
    require(id >= 0 && id < kMaxId, where, "the token \"{}\" has id {}; ids from 0 to {} are possible", piece,
            id, kMaxId - 1);
    bytes += piece.size();
    top = std::max(top, id);
  }
  require(static_cast<size_t>(top) + 1 <= 4 * pieces.size() + 100'000, where,
          "the largest id is {} but there are only {} tokens; is the file damaged?", top, pieces.size());
  require(bytes < UINT32_MAX, where, "the vocabulary's text is over 4 GiB");
  blob_.clear();
  blob_.reserve(bytes);
  longest_ = 0;
  by_id_.assign(static_cast<size_t>(top) + 1, {});
  known_.assign(static_cast<size_t>(top) + 1, false);
  slots_.assign(std::bit_ceil(pieces.size() * 2 + 2), {});
  for (const auto& [piece, id] : pieces) {
    const Entry entry{static_cast<uint32_t>(blob_.size()), static_cast<uint32_t>(piece.size())};
    blob_ += piece;
    longest_ = std::max(longest_, piece.size());
    by_id_[static_cast<size_t>(id)] = entry;
    known_[static_cast<size_t>(id)] = true;
    const uint64_t hash = XXH3_64bits(piece.data(), piece.size());
    size_t i = hash & (slots_.size() - 1);
    while (slots_[i].id >= 0 && view(slots_[i].text) != piece) i = (i + 1) & (slots_.size() - 1);
    slots_[i] = {static_cast<uint32_t>(hash >> 32), id, entry};
  }
}

int32_t Vocab::find(std::string_view piece) const {
  if (slots_.empty() || piece.size() > longest_) return -1;
  const uint64_t hash = XXH3_64bits(piece.data(), piece.size());
  const auto tag = static_cast<uint32_t>(hash >> 32);
  for (size_t i = hash & (slots_.size() - 1); slots_[i].id >= 0; i = (i + 1) & (slots_.size() - 1))
    if (slots_[i].tag == tag && view(slots_[i].text) == piece) return slots_[i].id;
  return -1;
}

std::string_view Vocab::piece(int32_t id) const {
  return contains(id) ? view(by_id_[static_cast<size_t>(id)]) : std::string_view{};
}

}  // namespace nibble::text
