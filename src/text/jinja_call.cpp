#include "text/jinja_call.h"

#include <algorithm>
#include <cmath>

namespace nibble::text::jinja {
namespace {

constexpr std::string_view kStringMethods[] = {
    "capitalize", "center",  "count",      "endswith",  "find",         "format",       "index",
    "isalnum",    "isalpha", "isdigit",    "islower",   "isspace",      "isupper",      "join",
    "ljust",      "lower",   "lstrip",     "partition", "removeprefix", "removesuffix", "replace",
    "rfind",      "rjust",   "rpartition", "rsplit",    "rstrip",       "split",        "splitlines",
    "startswith", "strip",   "swapcase",   "title",     "upper",        "zfill"};
constexpr std::string_view kDictMethods[] = {"copy", "get", "items", "keys", "values"};
constexpr std::string_view kDictForbidden[] = {"clear", "pop", "popitem", "setdefault", "update", "fromkeys"};
constexpr std::string_view kListMethods[] = {"copy", "count", "index"};
constexpr std::string_view kListForbidden[] = {"append", "clear",  "extend",  "insert",
                                               "pop",    "remove", "reverse", "sort"};

template <size_t N>
bool among(const std::string_view (&names)[N], std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

// Where the code points [start, stop) of s lie in bytes, for count(), find() and their like.
std::pair<size_t, size_t> range_of(const Str& s, Arguments& args, std::string_view callee) {
  const auto n = static_cast<int64_t>(count_code_points(s.bytes));
  const auto clamp = [&](int64_t i) { return std::clamp<int64_t>(i < 0 ? i + n : i, 0, n); };
  const int64_t start = clamp(args.take_integer(1, "", 0, callee)),
                stop = clamp(args.take_integer(2, "", n, callee));
  const size_t begin = code_point_offset(s.bytes, static_cast<size_t>(start));
  return {begin, std::max(begin, code_point_offset(s.bytes, static_cast<size_t>(stop)))};
}

bool any_affix(const Value& v, std::string_view text, bool prefix, std::string_view callee) {
  if (v.kind == Kind::kTuple)
    return std::any_of(v.list->items.begin(), v.list->items.end(),
                       [&](const Value& e) { return any_affix(e, text, prefix, callee); });
  const std::string_view affix = string_argument(v, callee).bytes;
  return prefix ? text.starts_with(affix) : text.ends_with(affix);
}

bool all_of(const Str& s, bool (*what)(char32_t)) {
  for (size_t at = 0; at < s.size();) {
    size_t n = 0;
    if (!what(code_point_at(s.bytes, at, n))) return false;
    at += n;
  }
  return s.size() > 0;
}

// Some cased character, and none of the other case.
bool cased_as(const Str& s, bool upper) {
  bool some = false;
  for (size_t at = 0; at < s.size();) {
    size_t n = 0;
    const char32_t c = code_point_at(s.bytes, at, n);
    if (upper ? is_lower(c) : is_upper(c)) return false;
    some = some || is_lower(c) || is_upper(c);
    at += n;
  }
  return some;
}

Str padded(Arena& arena, const Str& s, int64_t width, std::string_view fill, double left_share) {
  const auto n = static_cast<int64_t>(count_code_points(s.bytes));
  if (width <= n) return s;
  arena.budget.require_size(static_cast<size_t>(width - n) * fill.size());
  arena.budget.charge_bytes(static_cast<size_t>(width - n) * fill.size());
  const auto room = width - n;
  // str.center() puts the odd one on the left when the width is odd.
  const auto left = left_share == 0.5 ? room / 2 + (room & width & 1)
                                      : static_cast<int64_t>(left_share * static_cast<double>(room));
  Str out;
  for (int64_t i = 0; i < left; ++i) append(out, fill, Mark{});
  append(out, s);
  for (int64_t i = left; i < room; ++i) append(out, fill, Mark{});
  return out;
}

Value list_of(Arena& arena, std::vector<Str> parts, Kind kind = Kind::kList) {
  std::vector<Value> items;
  items.reserve(parts.size());
  for (Str& part : parts) items.push_back(arena.string(std::move(part)));
  return arena.list(kind, std::move(items));
}

Value partition(Arena& arena, const Str& s, std::string_view separator, bool from_right) {
  if (separator.empty()) fault("partition() got an empty separator");
  const size_t at = from_right ? rfind(s.bytes, separator) : find(s.bytes, separator);
  if (at == std::string_view::npos)
    return list_of(arena, from_right ? std::vector<Str>{{}, {}, s} : std::vector<Str>{s, {}, {}},
                   Kind::kTuple);
  return list_of(
      arena,
      {slice(s, 0, at), slice(s, at, at + separator.size()), slice(s, at + separator.size(), s.size())},
      Kind::kTuple);
}

// "{} {0} {name}".format(…) without format specifications.
Value brace_format(Arena& arena, const Str& format, Arguments& args) {
  Str out;
  size_t from = 0, automatic = 0;
  const std::string_view text = format.bytes;
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (c != '{' && c != '}') continue;
    append_slice(out, format, from, at);
    if (at + 1 < text.size() && text[at + 1] == c) {
      append_slice(out, format, at, at + 1);
      from = ++at + 1;
      continue;
    }
    const size_t close = text.find('}', at);
    if (c == '}' || close == std::string_view::npos) fault("format(): a single '{}' in the format", c);
    const std::string_view field = text.substr(at + 1, close - at - 1);
    if (field.find_first_of(":!.[{") != std::string_view::npos)
      fault("format(): the field \"{{{}}}\" is not supported; only {{}}, {{0}} and {{name}} are", field);
    const Value* v = nullptr;
    if (field.empty()) {
      v = args.take(automatic++, "");
    } else if (field.find_first_not_of("0123456789") == std::string_view::npos && field.size() < 6) {
      v = args.take(static_cast<size_t>(std::stoul(std::string(field))), "");
    } else {
      v = args.take(SIZE_MAX, field);
    }
    if (v == nullptr) fault("format(): nothing was given for \"{{{}}}\"", field);
    append_string(arena, out, *v);
    at = close;
    from = at + 1;
  }
  append_slice(out, format, from, text.size());
  return arena.string(std::move(out));
}

Value string_method(Arena& arena, const Value& self, std::string_view name, Arguments& args) {
  const Str& s = *self.string;
  arena.budget.charge_text(s);
  const auto chars_of = [&](Side side) {
    const Value* v = args.take(0, "");
    if (v == nullptr || v->kind == Kind::kNone) return strip(s, side, nullptr);
    const std::string_view chars = string_argument(*v, name).bytes;
    return strip(s, side, &chars);
  };
  const auto fill = [&]() -> std::string_view {
    const Value* v = args.take(1, "");
    if (v == nullptr) return " ";
    const Str& f = string_argument(*v, name);
    if (count_code_points(f.bytes) != 1) fault("{}() needs a single fill character", name);
    return f.bytes;
  };
  if (name == "strip") return arena.string(chars_of(Side::kBoth));
  if (name == "lstrip") return arena.string(chars_of(Side::kLeft));
  if (name == "rstrip") return arena.string(chars_of(Side::kRight));
  if (name == "upper") return arena.string(change_case(s, Case::kUpper));
  if (name == "lower") return arena.string(change_case(s, Case::kLower));
  if (name == "swapcase") return arena.string(change_case(s, Case::kSwap));
  if (name == "title") return arena.string(change_case(s, Case::kTitle));
  if (name == "capitalize") return arena.string(change_case(s, Case::kCapitalize));
  if (name == "startswith" || name == "endswith") {
    const Value& affix = args.need(0, "", name);
    const auto [begin, end] = range_of(s, args, name);
    return boolean(any_affix(affix, s.view().substr(begin, end - begin), name == "startswith", name));
  }
  if (name == "split" || name == "rsplit") {
    const Value* separator = args.take(0, "sep");
    const int64_t limit = args.take_integer(1, "maxsplit", -1, name);
    if (separator == nullptr || separator->kind == Kind::kNone)
      return list_of(arena, split(s, nullptr, limit, name == "rsplit", arena.budget));
    const std::string_view text = string_argument(*separator, name).bytes;
    return list_of(arena, split(s, &text, limit, name == "rsplit", arena.budget));
  }
  if (name == "splitlines")
    return list_of(arena, split_lines(s, args.take_bool(0, "keepends", false), arena.budget));
  if (name == "replace") {
    const std::string_view from = string_argument(args.need(0, "", name), name).bytes;
    const Str& to = string_argument(args.need(1, "", name), name);
    return arena.string(replace(s, from, to, args.take_integer(2, "count", -1, name), arena.budget));
  }
  if (name == "find" || name == "rfind" || name == "index" || name == "count") {
    const std::string_view what = string_argument(args.need(0, "", name), name).bytes;
    const auto [begin, end] = range_of(s, args, name);
    const std::string_view part = s.view().substr(begin, end - begin);
    if (name == "count") {
      if (what.empty()) return integer(static_cast<int64_t>(count_code_points(part)) + 1);
      int64_t n = 0;
      for (size_t at = find(part, what); at != std::string_view::npos;
           at = find(part, what, at + what.size()))
        ++n;
      return integer(n);
    }
    const size_t at = name == "rfind" ? rfind(part, what) : find(part, what);
    if (at == std::string_view::npos && name == "index") fault("index(): the substring was not found");
    return integer(at == std::string_view::npos
                       ? -1
                       : static_cast<int64_t>(count_code_points(s.view().substr(0, begin + at))));
  }
  if (name == "join") {
    Str out;
    bool first = true;
    for (const Value& v : iterate(arena, args.need(0, "", name))) {
      if (!first) append(out, s);
      first = false;
      append(out, string_argument(v, name));
    }
    return arena.string(std::move(out));
  }
  if (name == "format") return brace_format(arena, s, args);
  if (name == "partition" || name == "rpartition")
    return partition(arena, s, string_argument(args.need(0, "", name), name).bytes, name == "rpartition");
  if (name == "removeprefix" || name == "removesuffix") {
    const std::string_view affix = string_argument(args.need(0, "", name), name).bytes;
    if (name == "removeprefix")
      return s.view().starts_with(affix) ? arena.string(slice(s, affix.size(), s.size())) : self;
    return s.view().ends_with(affix) ? arena.string(slice(s, 0, s.size() - affix.size())) : self;
  }
  if (name == "ljust" || name == "rjust" || name == "center") {
    const int64_t width = args.take_integer(0, "", 0, name);
    return arena.string(padded(arena, s, width, fill(), name == "ljust" ? 0 : name == "rjust" ? 1 : 0.5));
  }
  if (name == "zfill") {
    const int64_t width = args.take_integer(0, "", 0, name);
    const bool sign = s.view().starts_with('-') || s.view().starts_with('+');
    Str out = sign ? slice(s, 0, 1) : Str{};
    append(out, padded(arena, slice(s, sign ? 1 : 0, s.size()), width - (sign ? 1 : 0), "0", 1));
    return arena.string(std::move(out));
  }
  if (name == "isspace") return boolean(all_of(s, is_space));
  if (name == "isalpha") return boolean(all_of(s, is_alpha));
  if (name == "isdigit") return boolean(all_of(s, is_decimal));
  if (name == "isalnum") return boolean(all_of(s, [](char32_t c) { return is_alpha(c) || is_decimal(c); }));
  return boolean(cased_as(s, name == "isupper"));
}

Value dict_method(Arena& arena, const Value& self, std::string_view name, Arguments& args) {
  if (name == "copy") return self;
  if (name == "get") {
    const Value* found = look_up(arena, *self.dict, args.need(0, "", name));
    const Value otherwise = args.take(1, "", none());
    return found != nullptr ? *found : otherwise;
  }
  std::vector<Value> items;
  for (const auto& [key, value] : self.dict->entries)
    items.push_back(name == "keys"     ? key
                    : name == "values" ? value
                                       : arena.list(Kind::kTuple, {key, value}, self.mark));
  return arena.list(Kind::kView, std::move(items), self.mark,
                    name == "keys"     ? "dict_keys"
                    : name == "values" ? "dict_values"
                                       : "dict_items");
}

Value list_method(Arena& arena, const Value& self, std::string_view name, Arguments& args) {
  if (name == "copy") return self;
  const Value& what = args.need(0, "", name);
  int64_t count = 0;
  for (size_t i = 0; i < self.list->items.size(); ++i) {
    if (!equal(arena, self.list->items[i], what)) continue;
    if (name == "index") return integer(static_cast<int64_t>(i));
    ++count;
  }
  if (name == "index") fault("index(): the value is not in the list");
  return integer(count);
}

}  // namespace

const Value* Arguments::take(size_t place, std::string_view name) {
  if (place < positional.size()) {
    places_ = std::max(places_, place + 1);
    return &positional[place];
  }
  if (!name.empty()) {
    for (const auto& [key, value] : named) {
      if (key != name) continue;
      ++names_;
      return &value;
    }
  }
  return nullptr;
}

Value Arguments::take(size_t place, std::string_view name, Value otherwise) {
  const Value* v = take(place, name);
  return v != nullptr ? *v : otherwise;
}

const Value& Arguments::need(size_t place, std::string_view name, std::string_view callee) {
  const Value* v = take(place, name);
  if (v == nullptr) fault("{}() needs {} argument{}", callee, place + 1, place == 0 ? "" : "s");
  return *v;
}

int64_t Arguments::take_integer(size_t place, std::string_view name, int64_t otherwise,
                                std::string_view callee) {
  const Value* v = take(place, name);
  if (v == nullptr || v->kind == Kind::kNone) return otherwise;
  if (!v->is_whole()) fault("{}() needs a whole number, got {}", callee, type_name(*v));
  return v->whole();
}

bool Arguments::take_bool(size_t place, std::string_view name, bool otherwise) {
  const Value* v = take(place, name);
  return v != nullptr ? truth(*v) : otherwise;
}

void Arguments::done(std::string_view callee) const {
  if (positional.size() > places_)
    fault("{}() got {} positional arguments, more than it takes", callee, positional.size());
  if (named.size() > names_)
    fault("{}() got a named argument that it does not take or got twice: {}", callee, named.back().first);
}

MethodKind method_kind(const Value& self, std::string_view name) {
  switch (self.kind) {
    case Kind::kString:
      return among(kStringMethods, name) ? MethodKind::kKnown : MethodKind::kNone;
    case Kind::kDict:
      return among(kDictMethods, name)     ? MethodKind::kKnown
             : among(kDictForbidden, name) ? MethodKind::kForbidden
                                           : MethodKind::kNone;
    case Kind::kList:
      return among(kListMethods, name)     ? MethodKind::kKnown
             : among(kListForbidden, name) ? MethodKind::kForbidden
                                           : MethodKind::kNone;
    case Kind::kTuple:
      return name == "count" || name == "index" ? MethodKind::kKnown : MethodKind::kNone;
    default:
      return MethodKind::kNone;
  }
}

Value call_method(Arena& arena, const Value& self, std::string_view name, Arguments& args) {
  const Value v = self.is_string()           ? string_method(arena, self, name, args)
                  : self.kind == Kind::kDict ? dict_method(arena, self, name, args)
                                             : list_method(arena, self, name, args);
  args.done(name);
  return v;
}

const Str& string_argument(const Value& v, std::string_view callee) {
  if (!v.is_string())
    fault("{}() needs a string, got {}", callee,
          v.is_undefined() && v.name != nullptr ? "undefined " + *v.name : type_name(v));
  return *v.string;
}

Value percent_format(Arena& arena, const Str& format, const Value& args) {
  Str out;
  size_t used = 0, from = 0;
  const std::string_view text = format.bytes;
  const bool many = args.kind == Kind::kTuple;
  const auto next = [&]() -> const Value& {
    if (used >= (many ? args.list->items.size() : 1)) fault("not enough values for the format");
    return many ? args.list->items[used++] : (++used, args);
  };
  for (size_t at = 0; at < text.size(); ++at) {
    if (text[at] != '%') continue;
    append_slice(out, format, from, at);
    if (++at >= text.size()) fault("the format ends with %");
    int precision = -1;
    if (text[at] == '.') {
      precision = 0;
      while (++at < text.size() && text[at] >= '0' && text[at] <= '9' && precision < 1000)
        precision = precision * 10 + (text[at] - '0');
      if (at >= text.size() || precision > 100) fault("the format's precision is not supported");
    }
    const char c = text[at];
    if (c == '%') {
      append_slice(out, format, at, at + 1);
    } else if (c == 's' && precision < 0) {
      append_string(arena, out, next());
    } else if (c == 'r' && precision < 0) {
      append_repr(arena, out, next());
    } else if ((c == 'd' || c == 'i') && precision < 0) {
      const Value& v = next();
      if (!v.is_number()) fault("%d needs a number, got {}", type_name(v));
      append(out, v.is_whole() ? std::to_string(v.whole()) : fmt::format("{:.0f}", std::trunc(v.number())),
             v.mark);
    } else if (c == 'f') {
      const Value& v = next();
      if (!v.is_number()) fault("%f needs a number, got {}", type_name(v));
      append(out, fmt::format("{:.{}f}", v.number(), precision < 0 ? 6 : precision), v.mark);
    } else {
      fault("the format %{} is not supported; %s, %r, %d, %f and %.Nf are", c);
    }
    from = at + 1;
  }
  append_slice(out, format, from, text.size());
  if (many && used < args.list->items.size()) fault("not all values were used by the format");
  return arena.string(std::move(out));
}

Value take_slice(Arena& arena, const Value& of, const SliceParts& parts) {
  const auto whole = [](const Value* v, int64_t otherwise) {
    if (v == nullptr || v->kind == Kind::kNone) return otherwise;
    if (!v->is_whole()) fault("a slice needs whole numbers, got {}", type_name(*v));
    return v->whole();
  };
  const int64_t step = whole(parts.step, 1), n = length(of);
  if (step == 0) fault("the step of a slice cannot be 0");
  const auto clamp = [&](int64_t i) {
    return std::clamp<int64_t>(i < 0 ? i + n : i, step < 0 ? -1 : 0, step < 0 ? n - 1 : n);
  };
  const int64_t start = parts.start == nullptr || parts.start->kind == Kind::kNone
                            ? (step < 0 ? n - 1 : 0)
                            : clamp(whole(parts.start, 0));
  const int64_t stop = parts.stop == nullptr || parts.stop->kind == Kind::kNone ? (step < 0 ? -1 : n)
                                                                                : clamp(whole(parts.stop, 0));
  if (of.is_string() && step == 1) {
    arena.budget.charge_text(*of.string);
    if (start >= stop) return arena.string(Str{});
    const size_t begin = code_point_offset(of.string->bytes, static_cast<size_t>(start));
    const size_t rest = code_point_offset(of.string->view().substr(begin), static_cast<size_t>(stop - start));
    return arena.string(slice(*of.string, begin, begin + rest));
  }
  std::vector<Value> items = iterate(arena, of), kept;
  // The distance to `stop` is compared before adding the step, which may be as large as it likes.
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    kept.push_back(items[static_cast<size_t>(i)]);
    if (step > 0 ? stop - i <= step : stop - i >= step) break;
    i += step;
  }
  if (of.is_string()) {
    Str out;
    for (const Value& v : kept) append(out, *v.string);
    return arena.string(std::move(out));
  }
  return arena.list(of.kind, std::move(kept), of.mark, of.list->type);
}

}  // namespace nibble::text::jinja
