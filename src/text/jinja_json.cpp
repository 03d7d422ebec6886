// tojson: json.dumps() with provenance.
#include <algorithm>
#include <cmath>

#include "text/jinja_value.h"

namespace nibble::text::jinja {
namespace {

void append_json_string(Arena& arena, Str& to, const Str& s, Mark mark, bool ensure_ascii) {
  arena.budget.charge(s.size() / 64);
  append(to, "\"", s.runs.empty() ? Run{0, mark.message, -1, mark.origin, false} : s.runs.front());
  size_t from = 0, run = 0;
  for (size_t at = 0; at < s.size();) {
    size_t n = 0;
    const char32_t c = code_point_at(s.bytes, at, n);
    std::string escaped;
    switch (c) {
      case '"':
        escaped = "\\\"";
        break;
      case '\\':
        escaped = "\\\\";
        break;
      case '\n':
        escaped = "\\n";
        break;
      case '\r':
        escaped = "\\r";
        break;
      case '\t':
        escaped = "\\t";
        break;
      case '\f':
        escaped = "\\f";
        break;
      case '\b':
        escaped = "\\b";
        break;
      default:
        if (c < 0x20 || (ensure_ascii && c >= 0x7F && c < 0x10000 && c != 0x7F)) {
          escaped = fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
        } else if (ensure_ascii && c >= 0x10000) {
          const auto v = static_cast<uint32_t>(c) - 0x10000;
          escaped = fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (v >> 10), 0xDC00 + (v & 0x3FF));
        }
    }
    if (!escaped.empty()) {
      append_slice(to, s, from, at);
      while (s.runs[run].end <= at) ++run;
      append(to, escaped, s.runs[run]);
      from = at + n;
    }
    at += n;
  }
  append_slice(to, s, from, s.size());
  append(to, "\"", s.runs.empty() ? Run{0, mark.message, -1, mark.origin, false} : s.runs.back());
}

std::string json_float(double v) {
  if (std::isnan(v)) return "NaN";
  if (std::isinf(v)) return v > 0 ? "Infinity" : "-Infinity";
  return repr_float(v);
}

void append_key(Arena& arena, Str& to, const Value& key, const JsonStyle& style) {
  std::string text;
  switch (key.kind) {
    case Kind::kString:
      return append_json_string(arena, to, *key.string, key.mark, style.ensure_ascii);
    case Kind::kNone:
      text = "null";
      break;
    case Kind::kBool:
      text = key.boolean ? "true" : "false";
      break;
    case Kind::kInt:
      text = std::to_string(key.integer);
      break;
    case Kind::kFloat:
      text = json_float(key.real);
      break;
    default:
      fault("tojson: a key should be a string or number, got {}", type_name(key));
  }
  append(to, '"' + text + '"', key.mark);
}

}  // namespace

void append_json(Arena& arena, Str& to, const Value& v, const JsonStyle& style, int depth) {
  if (depth > kMaxDepth) fault("tojson: a value is nested more than {} levels deep", kMaxDepth);
  arena.budget.charge(1);
  const auto new_line = [&](int level) {
    if (!style.pretty) return;
    append(to, "\n", v.mark);
    for (int i = 0; i < level; ++i) append(to, style.indent.view(), v.mark);
  };
  const auto separate = [&](bool& first) {
    if (!first) append(to, style.item_separator, v.mark);
    first = false;
    new_line(depth + 1);
  };
  bool first = true;
  switch (v.kind) {
    case Kind::kNone:
      return append(to, "null", v.mark);
    case Kind::kBool:
      return append(to, v.boolean ? "true" : "false", v.mark);
    case Kind::kInt:
      return append(to, std::to_string(v.integer), v.mark);
    case Kind::kFloat:
      return append(to, json_float(v.real), v.mark);
    case Kind::kString:
      return append_json_string(arena, to, *v.string, v.mark, style.ensure_ascii);
    case Kind::kList:
    case Kind::kTuple:
      append(to, "[", v.mark);
      for (const Value& item : v.list->items) {
        separate(first);
        append_json(arena, to, item, style, depth + 1);
      }
      if (!first) new_line(depth);
      return append(to, "]", v.mark);
    case Kind::kDict: {
      auto entries = v.dict->entries;
      if (style.sort_keys)
        std::stable_sort(entries.begin(), entries.end(),
                         [&](const auto& a, const auto& b) { return compare(arena, a.first, b.first) < 0; });
      append(to, "{", v.mark);
      for (const auto& [key, value] : entries) {
        separate(first);
        append_key(arena, to, key, style);
        append(to, style.key_separator, v.mark);
        append_json(arena, to, value, style, depth + 1);
      }
      if (!first) new_line(depth);
      return append(to, "}", v.mark);
    }
    case Kind::kUndefined:
      fault("tojson: {} is undefined", v.name != nullptr ? *v.name : "the value");
    default:
      fault("tojson: a {} cannot be written as JSON", type_name(v));
  }
}

}  // namespace nibble::text::jinja
