// Filters, as jinja2's (tojson as Transformers').
#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "text/jinja_eval.h"

namespace nibble::text::jinja {
namespace {

using Filter = Value (*)(Evaluator& e, const Value& v, Arguments& args);

const Str& text_of(Evaluator& e, const Value& v) { return *to_string(e.arena(), v).string; }

// "a.b.0" of an item, as map(attribute=…), selectattr and sort look it up.
Value attribute_path(Evaluator& e, Value item, const Value& path) {
  if (!path.is_string()) return e.item_of(item, path);
  std::string_view rest = path.string->bytes;
  for (;;) {
    const size_t dot = rest.find('.');
    const std::string_view part = rest.substr(0, dot);
    int64_t index = 0;
    const auto result = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool number = !part.empty() && part[0] != '-' && result.ec == std::errc() &&
                        result.ptr == part.data() + part.size();
    item = e.item_of(item, number ? integer(index) : e.arena().string(part));
    if (dot == std::string_view::npos) return item;
    rest.remove_prefix(dot + 1);
  }
}

// What sort, unique, min and max compare: an attribute, and strings without regard to case unless asked.
Value sort_key(Evaluator& e, const Value& item, const Value* attribute, bool case_sensitive) {
  const Value v =
      attribute != nullptr && attribute->kind != Kind::kNone ? attribute_path(e, item, *attribute) : item;
  return v.is_string() && !case_sensitive ? e.arena().string(change_case(*v.string, Case::kLower)) : v;
}

Value generator(Evaluator& e, std::vector<Value> items) {
  return e.arena().list(Kind::kGenerator, std::move(items));
}

// Arguments from `first` on, for a filter or test that is named by an argument.
Arguments rest_of(const Arguments& args, size_t first) {
  Arguments rest;
  if (args.positional.size() > first)
    rest.positional.assign(args.positional.begin() + static_cast<std::ptrdiff_t>(first),
                           args.positional.end());
  rest.named = args.named;
  return rest;
}

Value pick(Evaluator& e, const Value& v, Arguments& args, bool by_attribute, bool wanted) {
  const size_t name = by_attribute ? 1 : 0;
  const Value attribute = by_attribute ? args.need(0, "", "selectattr") : Value{};
  std::vector<Value> kept;
  if (!truth(v)) return generator(e, {});  // jinja2 does not even look whether it could be looped over
  for (const Value& item : iterate(e.arena(), v)) {
    const Value tested = by_attribute ? attribute_path(e, item, attribute) : item;
    bool ok = false;
    if (args.positional.size() > name) {
      Arguments rest = rest_of(args, name + 1);
      ok = apply_test(e, string_argument(args.positional[name], "select").bytes, tested, rest);
    } else {
      ok = truth(tested);
    }
    if (ok == wanted) kept.push_back(item);
  }
  return generator(e, std::move(kept));
}

Value map_filter(Evaluator& e, const Value& v, Arguments& args) {
  std::vector<Value> out;
  if (!truth(v)) return generator(e, {});
  const Value* attribute = args.positional.empty() ? args.take(SIZE_MAX, "attribute") : nullptr;
  if (attribute != nullptr) {
    const Value* otherwise = args.take(SIZE_MAX, "default");
    args.done("map");
    for (const Value& item : iterate(e.arena(), v)) {
      const Value found = attribute_path(e, item, *attribute);
      out.push_back(found.is_undefined() && otherwise != nullptr ? *otherwise : found);
    }
    return generator(e, std::move(out));
  }
  const std::string& name = string_argument(args.need(0, "", "map"), "map").bytes;
  for (const Value& item : iterate(e.arena(), v)) {
    Arguments rest = rest_of(args, 1);
    out.push_back(apply_filter(e, name, item, rest));
  }
  return generator(e, std::move(out));
}

Value default_filter(Evaluator& e, const Value& v, Arguments& args) {
  const Value* otherwise = args.take(0, "default_value");
  const bool falsy = args.take_bool(1, "boolean", false);
  args.done("default");
  if (!v.is_undefined() && (!falsy || truth(v))) return v;
  return otherwise != nullptr ? *otherwise : e.arena().string(std::string_view());
}

Value tojson(Evaluator& e, const Value& v, Arguments& args) {
  JsonStyle style;
  style.ensure_ascii = args.take_bool(0, "ensure_ascii", false);
  const Value* indent = args.take(1, "indent");
  const Value* separators = args.take(2, "separators");
  style.sort_keys = args.take_bool(3, "sort_keys", false);
  args.done("tojson");
  if (indent != nullptr && indent->kind != Kind::kNone) {
    style.pretty = true;
    style.item_separator = ",";
    if (indent->is_string()) {
      style.indent = *indent->string;
    } else {
      const int64_t width = args.take_integer(1, "indent", 0, "tojson");
      if (width > 100) fault("tojson: an indent of {} is not supported", width);
      if (width > 0) append(style.indent, std::string(static_cast<size_t>(width), ' '), Mark{});
    }
  }
  if (separators != nullptr && separators->kind != Kind::kNone) {
    const auto both = iterate(e.arena(), *separators);
    if (both.size() != 2) fault("tojson: separators should be a pair");
    style.item_separator = string_argument(both[0], "tojson").bytes;
    style.key_separator = string_argument(both[1], "tojson").bytes;
  }
  Str out;
  append_json(e.arena(), out, v, style);
  return e.arena().string(std::move(out));
}

Value join(Evaluator& e, const Value& v, Arguments& args) {
  const Value* separator = args.take(0, "d");
  const Value* attribute = args.take(1, "attribute");
  args.done("join");
  Str out;
  bool first = true;
  for (Value item : iterate(e.arena(), v)) {
    if (attribute != nullptr && attribute->kind != Kind::kNone) item = attribute_path(e, item, *attribute);
    if (!first && separator != nullptr) append_string(e.arena(), out, *separator);
    first = false;
    append_string(e.arena(), out, item);
  }
  return e.arena().string(std::move(out));
}

Value trim(Evaluator& e, const Value& v, Arguments& args) {
  const Value* chars = args.take(0, "chars");
  args.done("trim");
  const Str& s = text_of(e, v);
  if (chars == nullptr || chars->kind == Kind::kNone) return e.arena().string(strip(s, Side::kBoth, nullptr));
  const std::string_view drop = string_argument(*chars, "trim").bytes;
  return e.arena().string(strip(s, Side::kBoth, &drop));
}

template <Case how>
Value cased(Evaluator& e, const Value& v, Arguments& args) {
  args.done("case filter");
  return e.arena().string(change_case(text_of(e, v), how));
}

Value replace_filter(Evaluator& e, const Value& v, Arguments& args) {
  const Str& from = text_of(e, args.need(0, "old", "replace"));
  const Str& to = text_of(e, args.need(1, "new", "replace"));
  const int64_t limit = args.take_integer(2, "count", -1, "replace");
  args.done("replace");
  return e.arena().string(replace(text_of(e, v), from.bytes, to, limit, e.arena().budget));
}

Value indent_filter(Evaluator& e, const Value& v, Arguments& args) {
  const Value* width = args.take(0, "width");
  const bool first = args.take_bool(1, "first", false), blank = args.take_bool(2, "blank", false);
  args.done("indent");
  Str indentation;
  if (width != nullptr && width->is_string()) {
    indentation = *width->string;
  } else {
    const int64_t n = width == nullptr ? 4 : width->is_whole() ? width->whole() : -1;
    if (n > 1000 || (width != nullptr && !width->is_whole()))
      fault("indent needs a width of at most 1000 or a string");
    if (n > 0) append(indentation, std::string(static_cast<size_t>(n), ' '), Mark{});
  }
  Str s = text_of(e, v), out;
  append(s, "\n", s.runs.empty() ? Run{} : s.runs.back());
  const std::vector<Str> lines = split_lines(s, true, e.arena().budget);
  for (size_t i = 0; i < lines.size(); ++i) {
    const bool empty = strip(lines[i], Side::kRight, nullptr).size() == 0 &&
                       split_lines(lines[i], false, e.arena().budget)[0].size() == 0;
    if (i == 0 ? first : blank || !empty) append(out, indentation);
    e.arena().budget.charge_bytes(indentation.size());
    const Str line = split_lines(lines[i], false, e.arena().budget)[0];
    append(out, line);
    if (i + 1 < lines.size()) append(out, "\n", lines[i].runs.back());
  }
  return e.arena().string(std::move(out));
}

std::optional<double> parse_float(const Str& s) {
  const Str inner = strip(s, Side::kBoth, nullptr);
  std::string text;
  for (const char c : inner.bytes)
    if (c != '_') text += c;
  if (text.starts_with('+')) text.erase(0, 1);
  double d = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), d);
  return !text.empty() && result.ec == std::errc() && result.ptr == text.data() + text.size()
             ? std::optional(d)
             : std::nullopt;
}

int64_t truncated(double d) {
  if (!(std::fabs(d) < 9.2e18)) fault("{} does not fit in 64 bits", d);
  return static_cast<int64_t>(d);
}

void refuse_undefined(const Value& v, std::string_view filter) {
  if (v.is_undefined()) fault("{}: {} is undefined", filter, v.name != nullptr ? *v.name : "the value");
}

Value int_filter(Evaluator&, const Value& v, Arguments& args) {
  const Value otherwise = args.take(0, "default", integer(0));
  if (args.take_integer(1, "base", 10, "int") != 10) fault("int: only base 10 is supported");
  args.done("int");
  refuse_undefined(v, "int");
  if (v.is_whole()) return integer(v.whole(), v.mark);
  if (v.kind == Kind::kFloat) return std::isfinite(v.real) ? integer(truncated(v.real), v.mark) : otherwise;
  if (!v.is_string()) return otherwise;
  std::string text = strip(*v.string, Side::kBoth, nullptr).bytes;
  if (text.starts_with('+')) text.erase(0, 1);
  int64_t i = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), i);
  if (!text.empty() && result.ec == std::errc() && result.ptr == text.data() + text.size()) return integer(i);
  const auto d = parse_float(*v.string);
  return d.has_value() && std::isfinite(*d) ? integer(truncated(*d)) : otherwise;
}

Value float_filter(Evaluator&, const Value& v, Arguments& args) {
  const Value otherwise = args.take(0, "default", real(0));
  args.done("float");
  refuse_undefined(v, "float");
  if (v.is_number()) return real(v.number(), v.mark);
  const auto d = v.is_string() ? parse_float(*v.string) : std::nullopt;
  return d.has_value() ? real(*d) : otherwise;
}

Value abs_filter(Evaluator&, const Value& v, Arguments& args) {
  args.done("abs");
  if (!v.is_number()) fault("abs needs a number, got {}", type_name(v));
  if (v.kind == Kind::kFloat) return real(std::fabs(v.real));
  if (v.whole() == INT64_MIN) fault("a whole number does not fit in 64 bits");
  return integer(std::abs(v.whole()));
}

Value round_filter(Evaluator&, const Value& v, Arguments& args) {
  const int64_t precision = args.take_integer(0, "precision", 0, "round");
  const Value* method = args.take(1, "method");
  const std::string how = method != nullptr ? string_argument(*method, "round").bytes : "common";
  args.done("round");
  if (!v.is_number()) fault("round needs a number, got {}", type_name(v));
  if (precision < 0 || precision > 30) fault("round: a precision of {} is not supported", precision);
  if (how == "common") {
    if (v.is_whole()) return integer(v.whole());
    if (!std::isfinite(v.real)) return v;
    return real(
        std::stod(fmt::format("{:.{}f}", v.real, precision)));  // exact decimal, ties to even, as Python's
  }
  if (how != "ceil" && how != "floor") fault("round: the method should be common, ceil or floor");
  const double scale = std::pow(10.0, static_cast<double>(precision));
  return real((how == "ceil" ? std::ceil(v.number() * scale) : std::floor(v.number() * scale)) / scale);
}

Value first_filter(Evaluator& e, const Value& v, Arguments& args) {
  args.done("first");
  if (v.kind == Kind::kGenerator)
    return v.list->used < v.list->items.size() ? v.list->items[v.list->used++] : undefined();
  const auto items = iterate(e.arena(), v);
  return items.empty() ? undefined() : items.front();
}

Value last_filter(Evaluator& e, const Value& v, Arguments& args) {
  args.done("last");
  if (v.kind == Kind::kGenerator) fault("last needs a list; is |list missing?");
  const auto items = iterate(e.arena(), v);
  return items.empty() ? undefined() : items.back();
}

Value length_filter(Evaluator&, const Value& v, Arguments& args) {
  args.done("length");
  return integer(length(v));
}

Value list_filter(Evaluator& e, const Value& v, Arguments& args) {
  args.done("list");
  return e.arena().list(Kind::kList, iterate(e.arena(), v), v.is_string() ? Mark{} : v.mark);
}

Value reverse_filter(Evaluator& e, const Value& v, Arguments& args) {
  args.done("reverse");
  auto items = iterate(e.arena(), v);
  std::reverse(items.begin(), items.end());
  if (!v.is_string()) return generator(e, std::move(items));
  Str out;
  for (const Value& item : items) append(out, *item.string);
  return e.arena().string(std::move(out));
}

Value string_filter(Evaluator& e, const Value& v, Arguments& args) {
  args.done("string");
  return to_string(e.arena(), v);
}

Value safe_filter(Evaluator& e, const Value& v, Arguments& args) {
  args.done("safe");
  Str s = text_of(e, v);
  s.markup = true;
  return e.arena().string(std::move(s));
}

Value escape_filter(Evaluator& e, const Value& v, Arguments& args) {
  args.done("escape");
  return v.is_string() && v.string->markup ? v : e.arena().string(escape_html(text_of(e, v)));
}

Value items_filter(Evaluator& e, const Value& v, Arguments& args) {
  args.done("items");
  if (v.is_undefined()) return generator(e, {});
  if (v.kind != Kind::kDict) fault("items needs a dict, got {}", type_name(v));
  std::vector<Value> out;
  for (const auto& [key, value] : v.dict->entries)
    out.push_back(e.arena().list(Kind::kTuple, {key, value}, v.mark));
  return generator(e, std::move(out));
}

// Stable; `keys` belong to `items`.
void sort_by(Evaluator& e, std::vector<std::pair<Value, Value>>& keyed, bool reverse) {
  e.arena().budget.charge(keyed.size() * 8);
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    const int c = compare(e.arena(), a.first, b.first);
    return reverse ? c > 0 : c < 0;
  });
}

Value dictsort(Evaluator& e, const Value& v, Arguments& args) {
  const bool case_sensitive = args.take_bool(0, "case_sensitive", false);
  const Value* by = args.take(1, "by");
  const bool reverse = args.take_bool(2, "reverse", false);
  args.done("dictsort");
  const std::string which = by != nullptr ? string_argument(*by, "dictsort").bytes : "key";
  if (which != "key" && which != "value") fault("dictsort: by should be \"key\" or \"value\"");
  if (v.kind != Kind::kDict) fault("dictsort needs a dict, got {}", type_name(v));
  std::vector<std::pair<Value, Value>> keyed;
  for (const auto& [key, value] : v.dict->entries)
    keyed.emplace_back(sort_key(e, which == "key" ? key : value, nullptr, case_sensitive),
                       e.arena().list(Kind::kTuple, {key, value}, v.mark));
  sort_by(e, keyed, reverse);
  std::vector<Value> out;
  for (const auto& entry : keyed) out.push_back(entry.second);
  return e.arena().list(Kind::kList, std::move(out));
}

Value sort_filter(Evaluator& e, const Value& v, Arguments& args) {
  const bool reverse = args.take_bool(0, "reverse", false),
             case_sensitive = args.take_bool(1, "case_sensitive", false);
  const Value* attribute = args.take(2, "attribute");
  args.done("sort");
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : iterate(e.arena(), v))
    keyed.emplace_back(sort_key(e, item, attribute, case_sensitive), item);
  sort_by(e, keyed, reverse);
  std::vector<Value> out;
  for (const auto& entry : keyed) out.push_back(entry.second);
  return e.arena().list(Kind::kList, std::move(out));
}

Value unique_filter(Evaluator& e, const Value& v, Arguments& args) {
  const bool case_sensitive = args.take_bool(0, "case_sensitive", false);
  const Value* attribute = args.take(1, "attribute");
  args.done("unique");
  std::vector<Value> keys, out;
  for (const Value& item : iterate(e.arena(), v)) {
    const Value key = sort_key(e, item, attribute, case_sensitive);
    if (std::any_of(keys.begin(), keys.end(), [&](const Value& k) { return equal(e.arena(), k, key); }))
      continue;
    keys.push_back(key);
    out.push_back(item);
  }
  return generator(e, std::move(out));
}

Value extreme(Evaluator& e, const Value& v, Arguments& args, bool largest) {
  const bool case_sensitive = args.take_bool(0, "case_sensitive", false);
  const Value* attribute = args.take(1, "attribute");
  args.done(largest ? "max" : "min");
  Value best = undefined(), best_key;
  bool first = true;
  for (const Value& item : iterate(e.arena(), v)) {
    const Value key = sort_key(e, item, attribute, case_sensitive);
    const int c = first ? 0 : compare(e.arena(), key, best_key);
    if (first || (largest ? c > 0 : c < 0)) {
      best = item;
      best_key = key;
    }
    first = false;
  }
  return best;
}

Value sum_filter(Evaluator& e, const Value& v, Arguments& args) {
  const Value* attribute = args.take(0, "attribute");
  Value total = args.take(1, "start", integer(0));
  args.done("sum");
  for (Value item : iterate(e.arena(), v)) {
    if (attribute != nullptr && attribute->kind != Kind::kNone) item = attribute_path(e, item, *attribute);
    if (!item.is_number() || !total.is_number()) fault("sum needs numbers, got {}", type_name(item));
    if (item.is_whole() && total.is_whole()) {
      int64_t r = 0;
      if (__builtin_add_overflow(total.whole(), item.whole(), &r))
        fault("a whole number does not fit in 64 bits");
      total = integer(r);
    } else {
      total = real(total.number() + item.number());
    }
  }
  return total;
}

Value batch(Evaluator& e, const Value& v, Arguments& args) {
  const int64_t size = args.take_integer(0, "linecount", 0, "batch");
  const Value* fill = args.take(1, "fill_with");
  args.done("batch");
  if (size < 1 || size > 100'000) fault("batch needs a size of at least 1 and at most 100,000");
  std::vector<Value> out, row;
  for (const Value& item : iterate(e.arena(), v)) {
    if (static_cast<int64_t>(row.size()) == size)
      out.push_back(e.arena().list(Kind::kList, std::exchange(row, {})));
    row.push_back(item);
  }
  if (!row.empty()) {
    while (fill != nullptr && fill->kind != Kind::kNone && static_cast<int64_t>(row.size()) < size)
      row.push_back(*fill);
    out.push_back(e.arena().list(Kind::kList, std::move(row)));
  }
  return generator(e, std::move(out));
}

Value format_filter(Evaluator& e, const Value& v, Arguments& args) {
  std::vector<Value> values = args.positional;
  for (size_t i = 0; i < values.size(); ++i) (void)args.take(i, "");
  args.done("format");
  return percent_format(e.arena(), text_of(e, v), e.arena().list(Kind::kTuple, std::move(values)));
}

Value attr_filter(Evaluator& e, const Value& v, Arguments& args) {
  // Objects of a template have methods and fields; |attr never falls back to items, so only namespaces
  // answer.
  const Str& name = string_argument(args.need(0, "name", "attr"), "attr");
  args.done("attr");
  return v.kind == Kind::kDict ? undefined(&name.bytes) : e.item_of(v, e.arena().string(name));
}

Value truncate_filter(Evaluator& e, const Value& v, Arguments& args) {
  const int64_t limit = args.take_integer(0, "length", 255, "truncate");
  const bool cut_words = args.take_bool(1, "killwords", false);
  const Value* end = args.take(2, "end");
  const int64_t leeway = args.take_integer(3, "leeway", 5, "truncate");
  args.done("truncate");
  Str dots;
  if (end != nullptr) {
    dots = string_argument(*end, "truncate");
  } else {
    append(dots, "...", Mark{});
  }
  const Str& s = text_of(e, v);
  const auto size = static_cast<int64_t>(count_code_points(s.bytes)),
             tail = static_cast<int64_t>(count_code_points(dots.bytes));
  if (limit < tail || leeway < 0) fault("truncate: the length should be at least {}", tail);
  if (size - leeway <= limit) return e.arena().string(s);
  Str out = slice(s, 0, code_point_offset(s.bytes, static_cast<size_t>(limit - tail)));
  if (const size_t space = out.bytes.rfind(' '); !cut_words && space != std::string::npos)
    out = slice(out, 0, space);
  append(out, dots);
  return e.arena().string(std::move(out));
}

constexpr std::pair<std::string_view, Filter> kFilters[] = {
    {"abs", abs_filter},
    {"attr", attr_filter},
    {"batch", batch},
    {"capitalize", cased<Case::kCapitalize>},
    {"count", length_filter},
    {"d", default_filter},
    {"default", default_filter},
    {"dictsort", dictsort},
    {"e", escape_filter},
    {"escape", escape_filter},
    {"first", first_filter},
    {"float", float_filter},
    {"format", format_filter},
    {"indent", indent_filter},
    {"int", int_filter},
    {"items", items_filter},
    {"join", join},
    {"last", last_filter},
    {"length", length_filter},
    {"list", list_filter},
    {"lower", cased<Case::kLower>},
    {"map", map_filter},
    {"max", [](Evaluator& e, const Value& v, Arguments& args) { return extreme(e, v, args, true); }},
    {"min", [](Evaluator& e, const Value& v, Arguments& args) { return extreme(e, v, args, false); }},
    {"reject", [](Evaluator& e, const Value& v, Arguments& args) { return pick(e, v, args, false, false); }},
    {"rejectattr",
     [](Evaluator& e, const Value& v, Arguments& args) { return pick(e, v, args, true, false); }},
    {"replace", replace_filter},
    {"reverse", reverse_filter},
    {"round", round_filter},
    {"safe", safe_filter},
    {"select", [](Evaluator& e, const Value& v, Arguments& args) { return pick(e, v, args, false, true); }},
    {"selectattr",
     [](Evaluator& e, const Value& v, Arguments& args) { return pick(e, v, args, true, true); }},
    {"sort", sort_filter},
    {"string", string_filter},
    {"sum", sum_filter},
    {"title", cased<Case::kWordTitle>},
    {"tojson", tojson},
    {"trim", trim},
    {"truncate", truncate_filter},
    {"unique", unique_filter},
    {"upper", cased<Case::kUpper>},
};

}  // namespace

Value apply_filter(Evaluator& e, std::string_view name, const Value& input, Arguments& args) {
  for (const auto& [known, filter] : kFilters)
    if (known == name) return filter(e, input, args);
  fault("the filter '{}' is not supported", name);
}

}  // namespace nibble::text::jinja
