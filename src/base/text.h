// Small helpers for UTF-8 text, names and figures shown to people.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

// Byte offset of the first invalid UTF-8 sequence (overlong forms, surrogates, > U+10FFFF), or npos when all
// is valid.
size_t find_invalid_utf8(std::string_view text);
// Length in bytes of the longest prefix that does not end inside a character that more bytes could complete.
size_t complete_utf8_prefix(std::string_view text);
// Invalid sequences become U+FFFD, as Python's errors="replace" does it.
std::string replace_invalid_utf8(std::string_view text);
std::vector<char32_t> decode_utf8(std::string_view valid);
void append_utf8(std::string& out, char32_t code_point);

// The known name nearest to `name` by edit distance, or "" when none is near enough to suggest.
std::string nearest_name(std::string_view name, std::span<const std::string> known);

std::string lower_ascii(std::string_view text);
std::string_view trim(std::string_view text);
std::vector<std::string> split(std::string_view text, char separator);

// "1.23 GB" (decimal), "12,345", "1 h 02 min", "3.4 s".
std::string show_bytes(double bytes);
std::string show_count(int64_t count);
std::string show_seconds(double seconds);

}  // namespace nibble
