// GPT-2's byte alphabet (Radford et al. 2019, encoder.py): printable Latin-1 stands for itself, the other 68
// bytes for U+0100 … U+0143 in order.
#include <array>

#include "base/text.h"
#include "text/aligned.h"
#include "text/bpe.h"

namespace nibble::text {
namespace {

struct Alphabet {
  std::array<char32_t, 256> to;
  std::array<int, 0x144> from;
  Alphabet() {
    from.fill(-1);
    char32_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      to[static_cast<size_t>(b)] = printable ? static_cast<char32_t>(b) : next++;
      from[to[static_cast<size_t>(b)]] = b;
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet kAlphabet;
  return kAlphabet;
}

}  // namespace

bool bytes_of_alphabet(std::string_view spelled, std::string& bytes) {
  bytes.clear();
  if (find_invalid_utf8(spelled) != std::string_view::npos) return false;
  size_t length = 0;
  for (size_t i = 0; i < spelled.size(); i += length) {
    const char32_t c = char_at(spelled, i, length);
    if (c >= alphabet().from.size() || alphabet().from[c] < 0) return false;
    bytes += static_cast<char>(alphabet().from[c]);
  }
  return true;
}

std::string alphabet_of_bytes(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) append_utf8(out, alphabet().to[static_cast<unsigned char>(c)]);
  return out;
}

}  // namespace nibble::text
