#include "base/text.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

namespace nibble {
namespace {

// Length of the well-formed sequence at text[i], 0 if ill-formed; `partial` tells that only more bytes are
// missing.
size_t sequence_length(std::string_view text, size_t i, bool& partial) {
  partial = false;
  const auto byte = [&](size_t k) { return static_cast<unsigned char>(text[k]); };
  const unsigned char b = byte(i);
  if (b < 0x80) return 1;
  size_t length = 0;
  unsigned char low = 0x80, high = 0xBF;
  if (b >= 0xC2 && b <= 0xDF) {
    length = 2;
  } else if (b >= 0xE0 && b <= 0xEF) {
    length = 3;
    if (b == 0xE0) low = 0xA0;
    if (b == 0xED) high = 0x9F;
  } else if (b >= 0xF0 && b <= 0xF4) {
    length = 4;
    if (b == 0xF0) low = 0x90;
    if (b == 0xF4) high = 0x8F;
  } else {
    return 0;
  }
  for (size_t k = 1; k < length; ++k) {
    if (i + k >= text.size()) {
      partial = true;
      return 0;
    }
    if (byte(i + k) < low || byte(i + k) > high) return 0;
    low = 0x80;
    high = 0xBF;
  }
  return length;
}

}  // namespace

size_t find_invalid_utf8(std::string_view text) {
  bool partial = false;
  for (size_t i = 0; i < text.size();) {
    const size_t n = sequence_length(text, i, partial);
    if (n == 0) return i;
    i += n;
  }
  return std::string_view::npos;
}

size_t complete_utf8_prefix(std::string_view text) {
  bool partial = false;
  for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const size_t i = text.size() - back;
    if (static_cast<unsigned char>(text[i]) < 0xC0) {
      if (static_cast<unsigned char>(text[i]) < 0x80) break;
      continue;
    }
    if (sequence_length(text, i, partial) == 0 && partial) return i;
    break;
  }
  return text.size();
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  bool partial = false;
  for (size_t i = 0; i < text.size();) {
    const size_t n = sequence_length(text, i, partial);
    if (n > 0) {
      out.append(text.substr(i, n));
      i += n;
      continue;
    }
    // One replacement per maximal ill-formed prefix (Unicode 15, table 3-8).
    out += "\xEF\xBF\xBD";
    size_t skip = 1;
    while (i + skip < text.size() && skip < 4) {
      bool more = false;
      (void)sequence_length(text.substr(0, i + skip), i, more);
      if (!more) {
        break;
      }
      bool still = false;
      if (sequence_length(text.substr(0, i + skip + 1), i, still) == 0 && !still) break;
      ++skip;
    }
    i += skip;
  }
  return out;
}

std::vector<char32_t> decode_utf8(std::string_view valid) {
  std::vector<char32_t> out;
  out.reserve(valid.size());
  for (size_t i = 0; i < valid.size();) {
    const auto b = static_cast<unsigned char>(valid[i]);
    const size_t n = b < 0x80 ? 1 : b < 0xE0 ? 2 : b < 0xF0 ? 3 : 4;
    char32_t c = n == 1 ? b : b & (0xFFu >> (n + 1));
    for (size_t k = 1; k < n && i + k < valid.size(); ++k)
      c = (c << 6) | (static_cast<unsigned char>(valid[i + k]) & 0x3F);
    out.push_back(c);
    i += n;
  }
  return out;
}

void append_utf8(std::string& out, char32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | (c >> 6));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | (c >> 12));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | (c >> 18));
    out += static_cast<char>(0x80 | ((c >> 12) & 0x3F));
    out += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
    out += static_cast<char>(0x80 | (c & 0x3F));
  }
}

std::string nearest_name(std::string_view name, std::span<const std::string> known) {
  std::string best;
  size_t best_distance = std::max<size_t>(2, name.size() / 2);
  for (const std::string& candidate : known) {
    // Optimal string alignment: two letters changed about count as one change.
    std::vector<size_t> before, row(candidate.size() + 1), next(candidate.size() + 1);
    for (size_t j = 0; j <= candidate.size(); ++j) row[j] = j;
    for (size_t i = 1; i <= name.size(); ++i) {
      next[0] = i;
      for (size_t j = 1; j <= candidate.size(); ++j) {
        next[j] = std::min({row[j] + 1, next[j - 1] + 1, row[j - 1] + (name[i - 1] != candidate[j - 1])});
        if (i > 1 && j > 1 && name[i - 1] == candidate[j - 2] && name[i - 2] == candidate[j - 1])
          next[j] = std::min(next[j], before[j - 2] + 1);
      }
      before = row;
      std::swap(row, next);
    }
    if (row.back() < best_distance) {
      best_distance = row.back();
      best = candidate;
    }
  }
  return best;
}

std::string lower_ascii(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\f\v";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  for (;;) {
    const size_t at = text.find(separator);
    parts.emplace_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

std::string show_bytes(double bytes) {
  const char* units[] = {"B", "kB", "MB", "GB", "TB"};
  int u = 0;
  while (std::abs(bytes) >= 999.5 && u < 4) {
    bytes /= 1000;
    ++u;
  }
  return u == 0 ? fmt::format("{:.0f} B", bytes)
                : fmt::format("{:.{}f} {}", bytes,
                              bytes < 9.995   ? 2
                              : bytes < 99.95 ? 1
                                              : 0,
                              units[u]);
}

std::string show_count(int64_t count) {
  std::string digits = std::to_string(count < 0 ? -count : count);
  for (auto at = static_cast<int64_t>(digits.size()) - 3; at > 0; at -= 3)
    digits.insert(static_cast<size_t>(at), ",");
  return (count < 0 ? "-" : "") + digits;
}

std::string show_seconds(double s) {
  if (s < 10) return fmt::format("{:.1f} s", s);
  if (s < 100) return fmt::format("{:.0f} s", s);
  const auto minutes = static_cast<int64_t>(std::llround(s / 60));
  if (minutes < 60) return fmt::format("{} min", minutes);
  return fmt::format("{} h {:02} min", minutes / 60, minutes % 60);
}

}  // namespace nibble
