// Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2,
// 3").
//
// A value is a pure function of (seed, stream, counter), so dropout, initialisation and shuffles do not
// depend on threads, order of calls or whether a forward pass runs a second time; to resume, nothing has to
// be stored.
#pragma once
#include <array>
#include <cmath>
#include <cstdint>
#include <string_view>
#include <vector>

namespace nibble {

inline std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> c, std::array<uint32_t, 2> k) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c[0], p1 = uint64_t{0xCD9E8D57u} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k[0], static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k[1], static_cast<uint32_t>(p0)};
    k = {k[0] + 0x9E3779B9u, k[1] + 0xBB67AE85u};
  }
  return c;
}

// FNV-1a; names a stream after the thing that draws from it ("layers.3.q_proj.dropout").
constexpr uint64_t stream_id(std::string_view name) {
  uint64_t h = 0xcbf29ce484222325ull;
  for (char ch : name) h = (h ^ static_cast<unsigned char>(ch)) * 0x100000001b3ull;
  return h;
}

class Rng {
 public:
  explicit Rng(uint64_t seed, uint64_t stream = 0) : seed_(seed), stream_(stream) {}

  // Four words for counter `index`; no state changes.
  std::array<uint32_t, 4> words(uint64_t index) const {
    return philox4x32({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32),
                       static_cast<uint32_t>(stream_), static_cast<uint32_t>(stream_ >> 32)},
                      {static_cast<uint32_t>(seed_), static_cast<uint32_t>(seed_ >> 32)});
  }
  uint64_t bits(uint64_t index) const {
    const auto w = words(index);
    return (uint64_t{w[1]} << 32) | w[0];
  }
  // In [0, 1), 24 random bits.
  float uniform(uint64_t index) const { return static_cast<float>(words(index)[0] >> 8) * 0x1.0p-24f; }
  double uniform_double(uint64_t index) const { return static_cast<double>(bits(index) >> 11) * 0x1.0p-53; }
  // Standard normal (Box-Muller).
  double normal(uint64_t index) const {
    const auto w = words(index);
    const double u = (static_cast<double>(w[0]) + 1.0) * 0x1.0p-32, v = static_cast<double>(w[1]) * 0x1.0p-32;
    return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v);
  }
  // In [0, n) without bias worth noticing (64-bit multiply-shift).
  uint64_t below(uint64_t index, uint64_t n) const {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(bits(index)) * n) >> 64);
  }
  // Fisher-Yates.
  std::vector<int64_t> permutation(int64_t n) const {
    std::vector<int64_t> order(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) order[static_cast<size_t>(i)] = i;
    for (int64_t i = n - 1; i > 0; --i)
      std::swap(order[static_cast<size_t>(i)],
                order[static_cast<size_t>(below(static_cast<uint64_t>(i), static_cast<uint64_t>(i) + 1))]);
    return order;
  }

 private:
  uint64_t seed_, stream_;
};

}  // namespace nibble
