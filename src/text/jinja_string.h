// Strings of the template interpreter: UTF-8 bytes and, for every byte, where it came from.
//
// All operations follow Python's str (code points, Unicode white space) and carry the provenance of what they
// keep. Strings are immutable once a Value points at them; positions are bytes unless a name says code
// points. Case mapping is Unicode's simple one, plus "ß" to "SS": titlecase ligatures and final sigma differ
// from Python.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/chat_template.h"

namespace nibble::text::jinja {

// What went wrong while a template was parsed or rendered; ChatTemplate adds the line and throws Error.
struct Fault {
  std::string message;
};

// Where a value came from; strings have it per byte, everything else as a whole.
struct Mark {
  Origin origin = Origin::kTemplate;
  int32_t message = -1;
};

// Bytes from the end of the previous run up to `end`.
struct Run {
  uint32_t end = 0;
  int32_t message = -1;
  int32_t turn = -1;  // -1 until the text is first written out inside a turn
  Origin origin = Origin::kTemplate;
  bool generation = false;
  bool same_source(const Run& o) const {
    return message == o.message && turn == o.turn && origin == o.origin && generation == o.generation;
  }
};

struct Str {
  std::string bytes;
  std::vector<Run> runs;
  bool markup = false;  // came from |safe or |escape

  size_t size() const { return bytes.size(); }
  std::string_view view() const { return bytes; }
};

// The work that one rendering may still do. A step is one node evaluated or about 512 bytes handled.
class Budget {
 public:
  static constexpr int64_t kSteps = 1'000'000;
  static constexpr size_t kBytes = size_t{16} << 20;
  void charge(size_t steps);
  void charge_bytes(size_t bytes) { charge(bytes / 512 + 1); }
  void charge_text(const Str& s) { charge(s.size() / 512 + s.runs.size() / 32 + 1); }
  // Before a string of that many bytes is made.
  void require_size(size_t bytes) const;
  // Before `count` items are laid out.
  void charge_items(size_t count) { charge(count / 4 + 1); }

 private:
  int64_t left_ = kSteps;
};

void append(Str& to, std::string_view text, Run source);
inline void append(Str& to, std::string_view text, Mark mark) {
  append(to, text, Run{0, mark.message, -1, mark.origin, false});
}
void append(Str& to, const Str& from);
void append_slice(Str& to, const Str& from, size_t begin, size_t end);
Str slice(const Str& from, size_t begin, size_t end);

// The code point at `at` and its length in bytes (1 for a byte that starts no character).
char32_t code_point_at(std::string_view text, size_t at, size_t& length);
size_t count_code_points(std::string_view text);
// Byte offset of code point `index` (the size of the text when there are fewer).
size_t code_point_offset(std::string_view text, size_t index);
bool is_space(char32_t c);
bool is_alpha(char32_t c);
bool is_decimal(char32_t c);
bool is_printable(char32_t c);
bool is_upper(char32_t c);
bool is_lower(char32_t c);

// Linear in both lengths, whatever the texts are.
size_t find(std::string_view text, std::string_view what, size_t from = 0);
size_t rfind(std::string_view text, std::string_view what);

enum class Side : uint8_t { kLeft = 1, kRight = 2, kBoth = 3 };
// `chars` null: white space.
Str strip(const Str& s, Side side, const std::string_view* chars);
Str replace(const Str& s, std::string_view from, const Str& to, int64_t limit, Budget& budget);
// `separator` null: runs of white space. limit < 0: no limit.
std::vector<Str> split(const Str& s, const std::string_view* separator, int64_t limit, bool from_right,
                       Budget& budget);
std::vector<Str> split_lines(const Str& s, bool keep_ends, Budget& budget);

enum class Case : uint8_t { kUpper, kLower, kSwap, kCapitalize, kTitle, kWordTitle };
// kTitle is str.title(), kWordTitle Jinja's |title (a word starts after space, -, (, {, [ or <).
Str change_case(const Str& s, Case how);
// Python's repr(): quotes and escapes.
void append_repr(Str& to, const Str& s);
// & < > ' " as markupsafe.escape() writes them.
Str escape_html(const Str& s);

}  // namespace nibble::text::jinja
