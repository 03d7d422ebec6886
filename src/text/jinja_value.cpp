#include "text/jinja_value.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/json.h"
#include "base/text.h"

namespace nibble::text::jinja {
namespace {

void check_depth(int depth) {
  if (depth > kMaxDepth) fault("a value is nested more than {} levels deep", kMaxDepth);
}

int sign(long double a, long double b) { return a < b ? -1 : a > b ? 1 : 0; }

}  // namespace

Value undefined(const std::string* name) {
  Value v;
  v.name = name;
  return v;
}

Value none(Mark mark) {
  Value v;
  v.kind = Kind::kNone;
  v.mark = mark;
  return v;
}

Value boolean(bool b, Mark mark) {
  Value v;
  v.kind = Kind::kBool;
  v.mark = mark;
  v.boolean = b;
  return v;
}

Value integer(int64_t i, Mark mark) {
  Value v;
  v.kind = Kind::kInt;
  v.mark = mark;
  v.integer = i;
  return v;
}

Value real(double d, Mark mark) {
  Value v;
  v.kind = Kind::kFloat;
  v.mark = mark;
  v.real = d;
  return v;
}

Value Arena::string(Str s) {
  budget.charge_text(s);
  Value v;
  v.kind = Kind::kString;
  v.string = &strings_.emplace_back(std::move(s));
  return v;
}

Value Arena::string(std::string_view text, Mark mark) {
  Str s;
  append(s, text, mark);
  return string(std::move(s));
}

Value Arena::list(Kind kind, std::vector<Value> items, Mark mark, std::string_view type) {
  budget.charge_items(items.size());
  Value v;
  v.kind = kind;
  v.mark = mark;
  v.list = &lists_.emplace_back(List{std::move(items), 0, type});
  return v;
}

Value Arena::dict(std::vector<std::pair<Value, Value>> entries, Mark mark, int32_t message) {
  budget.charge_items(entries.size() * 2);
  Value v;
  v.kind = Kind::kDict;
  v.mark = mark;
  v.dict = &dicts_.emplace_back(Dict{std::move(entries), message});
  return v;
}

Value Arena::undefined_named(std::string name) { return undefined(&names_.emplace_back(std::move(name))); }
Function* Arena::function() { return &functions_.emplace_back(); }
LoopState* Arena::loop() { return &loops_.emplace_back(); }

Value Arena::name_space() {
  Value v;
  v.kind = Kind::kNamespace;
  v.names = &spaces_.emplace_back();
  return v;
}

namespace {

Value from_json_at(Arena& arena, const Json& json, Mark mark, int32_t message, int depth) {
  check_depth(depth);
  switch (json.type()) {
    case Json::value_t::boolean:
      return boolean(json.get<bool>(), mark);
    case Json::value_t::number_unsigned:
      if (json.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
        fault("{} does not fit in 64 bits", json.dump());
      return integer(json.get<int64_t>(), mark);
    case Json::value_t::number_integer:
      return integer(json.get<int64_t>(), mark);
    case Json::value_t::number_float:
      return real(json.get<double>(), mark);
    case Json::value_t::string: {
      const auto& text = json.get_ref<const std::string&>();
      if (const size_t bad = find_invalid_utf8(text); bad != std::string::npos)
        fault("a string given to the template is not valid UTF-8 at byte {}", bad);
      return arena.string(text, mark);
    }
    case Json::value_t::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const Json& item : json) items.push_back(from_json_at(arena, item, mark, -1, depth + 1));
      return arena.list(Kind::kList, std::move(items), mark);
    }
    case Json::value_t::object: {
      std::vector<std::pair<Value, Value>> entries;
      entries.reserve(json.size());
      for (const auto& [key, item] : json.items()) {
        const Mark inner = message >= 0 && key == "role" ? Mark{Origin::kRole, message} : mark;
        entries.emplace_back(arena.string(key, mark), from_json_at(arena, item, inner, -1, depth + 1));
      }
      return arena.dict(std::move(entries), mark, message);
    }
    default:
      return none(mark);
  }
}

}  // namespace

Value from_json(Arena& arena, const Json& json, Mark mark) { return from_json_at(arena, json, mark, -1, 0); }

namespace {

// Templates know a model's reasoning by different names; as Transformers does, `reasoning_content` is filled
// from the older ones and `thinking` from whichever is there.
Json with_reasoning_aliases(const Json& message) {
  for (const char* name : {"reasoning_content", "thinking", "reasoning"}) {
    const auto found = message.find(name);
    if (found == message.end() || found->is_null()) continue;
    Json out = {{"thinking", *found}};
    for (const auto& [key, value] : message.items()) out[key] = value;
    out["reasoning_content"] = *found;
    return out;
  }
  return message;
}

}  // namespace

Value messages_from_json(Arena& arena, const Json& messages) {
  if (!messages.is_array()) fault("messages should be a list, got {}", messages.type_name());
  std::vector<Value> items;
  for (const Json& m : messages) {
    const auto i = static_cast<int32_t>(items.size());
    items.push_back(from_json_at(arena, m.is_object() ? with_reasoning_aliases(m) : m,
                                 Mark{Origin::kMessage, i}, m.is_object() ? i : -1, 0));
  }
  return arena.list(Kind::kList, std::move(items));
}

std::string_view type_name(const Value& v) {
  switch (v.kind) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return "str";
    case Kind::kList:
      return "list";
    case Kind::kTuple:
      return "tuple";
    case Kind::kView:
      return v.list->type;
    case Kind::kGenerator:
      return "generator";
    case Kind::kDict:
      return "dict";
    case Kind::kNamespace:
      return "Namespace";
    case Kind::kLoop:
      return "LoopContext";
    case Kind::kFunction:
      return "function";
  }
  return "?";
}

bool truth(const Value& v) {
  switch (v.kind) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
      return v.boolean;
    case Kind::kInt:
      return v.integer != 0;
    case Kind::kFloat:
      return v.real != 0;
    case Kind::kString:
      return v.string->size() > 0;
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kView:
      return !v.list->items.empty();
    case Kind::kDict:
      return !v.dict->entries.empty();
    case Kind::kLoop:
      return !v.loop->items->empty();
    default:
      return true;
  }
}

bool equal(Arena& arena, const Value& a, const Value& b, int depth) {
  check_depth(depth);
  arena.budget.charge(1);
  if (a.is_number() && b.is_number()) {
    if (a.is_whole() && b.is_whole()) return a.whole() == b.whole();
    return static_cast<long double>(a.kind == Kind::kFloat ? a.real : static_cast<long double>(a.whole())) ==
           static_cast<long double>(b.kind == Kind::kFloat ? b.real : static_cast<long double>(b.whole()));
  }
  if (a.kind != b.kind) return false;
  switch (a.kind) {
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kString:
      if (a.string->size() != b.string->size()) return false;
      arena.budget.charge_bytes(a.string->size());
      return a.string->bytes == b.string->bytes;
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kView: {
      if (a.kind == Kind::kView && (a.list->type != "range" || b.list->type != "range"))
        return a.list == b.list;
      const auto &x = a.list->items, &y = b.list->items;
      if (x.size() != y.size()) return false;
      for (size_t i = 0; i < x.size(); ++i)
        if (!equal(arena, x[i], y[i], depth + 1)) return false;
      return true;
    }
    case Kind::kDict:
      if (a.dict->entries.size() != b.dict->entries.size()) return false;
      for (const auto& [key, value] : a.dict->entries) {
        const Value* other = look_up(arena, *b.dict, key);
        if (other == nullptr || !equal(arena, value, *other, depth + 1)) return false;
      }
      return true;
    case Kind::kGenerator:
      return a.list == b.list;
    case Kind::kNamespace:
      return a.names == b.names;
    case Kind::kLoop:
      return a.loop == b.loop;
    default:
      return a.function == b.function;
  }
}

int compare(Arena& arena, const Value& a, const Value& b, int depth) {
  check_depth(depth);
  arena.budget.charge(1);
  if (a.is_number() && b.is_number()) {
    const auto wide = [](const Value& v) {
      return v.kind == Kind::kFloat ? static_cast<long double>(v.real) : static_cast<long double>(v.whole());
    };
    return sign(wide(a), wide(b));
  }
  if (a.is_string() && b.is_string()) {
    arena.budget.charge_bytes(std::min(a.string->size(), b.string->size()));
    return a.string->bytes.compare(b.string->bytes);
  }
  if ((a.kind == Kind::kList || a.kind == Kind::kTuple) && a.kind == b.kind) {
    const auto &x = a.list->items, &y = b.list->items;
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i)
      if (!equal(arena, x[i], y[i], depth + 1)) return compare(arena, x[i], y[i], depth + 1);
    return sign(static_cast<long double>(x.size()), static_cast<long double>(y.size()));
  }
  if (a.is_undefined() || b.is_undefined()) {
    const Value& u = a.is_undefined() ? a : b;
    fault("{} is undefined and cannot be compared", u.name != nullptr ? *u.name : "a value");
  }
  fault("cannot compare {} with {}", type_name(a), type_name(b));
}

const Value* look_up(Arena& arena, const Dict& dict, const Value& key) {
  if (key.kind == Kind::kList || key.kind == Kind::kDict)
    fault("{} cannot be a key of a dict", type_name(key));
  arena.budget.charge(dict.entries.size() / 32);
  for (const auto& [k, v] : dict.entries)
    if (k.kind == Kind::kString && key.kind == Kind::kString ? k.string->bytes == key.string->bytes
                                                             : equal(arena, k, key))
      return &v;
  return nullptr;
}

const Value* look_up(const Dict& dict, std::string_view key) {
  for (const auto& [k, v] : dict.entries)
    if (k.is_string() && k.string->bytes == key) return &v;
  return nullptr;
}

void put(Arena& arena, std::vector<std::pair<Value, Value>>& entries, const Value& key, const Value& value) {
  if (key.kind == Kind::kList || key.kind == Kind::kDict)
    fault("{} cannot be a key of a dict", type_name(key));
  arena.budget.charge(entries.size() / 32);
  for (auto& [k, v] : entries) {
    if (!equal(arena, k, key)) continue;
    v = value;
    return;
  }
  entries.emplace_back(key, value);
}

std::string repr_float(double v) {
  if (std::isnan(v)) return "nan";
  if (std::isinf(v)) return v > 0 ? "inf" : "-inf";
  char buffer[40];
  // Shortest digits, then Python's choice of notation: an exponent below 1e-4 and from 1e16 on.
  auto end = std::to_chars(buffer, buffer + sizeof buffer, v, std::chars_format::scientific).ptr;
  std::string text(buffer, end);
  const size_t e = text.find('e');
  const int exponent = std::stoi(text.substr(e + 1));
  if (exponent < -4 || exponent >= 16) return text;
  end = std::to_chars(buffer, buffer + sizeof buffer, v, std::chars_format::fixed).ptr;
  std::string fixed(buffer, end);
  if (fixed.find('.') == std::string::npos) fixed += ".0";
  return fixed;
}

Value to_string(Arena& arena, const Value& v) {
  if (v.is_string()) return v;
  Str s;
  append_string(arena, s, v);
  return arena.string(std::move(s));
}

void append_string(Arena& arena, Str& to, const Value& v) {
  if (v.is_string()) {
    arena.budget.charge_text(*v.string);
    append(to, *v.string);
  } else if (!v.is_undefined()) {
    append_repr(arena, to, v);
  }
}

void append_repr(Arena& arena, Str& to, const Value& v, int depth) {
  check_depth(depth);
  arena.budget.charge(1);
  const auto items = [&](const std::vector<Value>& list) {
    for (size_t i = 0; i < list.size(); ++i) {
      if (i > 0) append(to, ", ", v.mark);
      append_repr(arena, to, list[i], depth + 1);
    }
  };
  switch (v.kind) {
    case Kind::kUndefined:
      return append(to, "Undefined", v.mark);
    case Kind::kNone:
      return append(to, "None", v.mark);
    case Kind::kBool:
      return append(to, v.boolean ? "True" : "False", v.mark);
    case Kind::kInt:
      return append(to, std::to_string(v.integer), v.mark);
    case Kind::kFloat:
      return append(to, repr_float(v.real), v.mark);
    case Kind::kString:
      arena.budget.charge(v.string->size() / 64);
      if (v.string->markup) {
        append(to, "Markup(", v.mark);
        append_repr(to, *v.string);
        return append(to, ")", v.mark);
      }
      return append_repr(to, *v.string);
    case Kind::kList:
      append(to, "[", v.mark);
      items(v.list->items);
      return append(to, "]", v.mark);
    case Kind::kTuple:
      append(to, "(", v.mark);
      items(v.list->items);
      return append(to, v.list->items.size() == 1 ? ",)" : ")", v.mark);
    case Kind::kView:
      if (v.list->type == "range") break;
      append(to, fmt::format("{}([", v.list->type), v.mark);
      items(v.list->items);
      return append(to, "])", v.mark);
    case Kind::kDict: {
      append(to, "{", v.mark);
      bool first = true;
      for (const auto& [key, value] : v.dict->entries) {
        if (!first) append(to, ", ", v.mark);
        first = false;
        append_repr(arena, to, key, depth + 1);
        append(to, ": ", v.mark);
        append_repr(arena, to, value, depth + 1);
      }
      return append(to, "}", v.mark);
    }
    default:
      break;
  }
  fault("a {} cannot be printed{}", type_name(v), v.is_listed() ? "; is |list missing?" : "");
}

int64_t length(const Value& v) {
  switch (v.kind) {
    case Kind::kUndefined:
      return 0;
    case Kind::kString:
      return static_cast<int64_t>(count_code_points(v.string->bytes));
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kView:
      return static_cast<int64_t>(v.list->items.size());
    case Kind::kDict:
      return static_cast<int64_t>(v.dict->entries.size());
    case Kind::kLoop:
      return static_cast<int64_t>(v.loop->items->size());
    default:
      fault("{} has no length", type_name(v));
  }
}

std::vector<Value> iterate(Arena& arena, const Value& v) {
  std::vector<Value> out;
  switch (v.kind) {
    case Kind::kUndefined:
      return out;
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kView:
      arena.budget.charge_items(v.list->items.size());
      return v.list->items;
    case Kind::kGenerator: {
      arena.budget.charge_items(v.list->items.size());
      const size_t from = std::min(v.list->used, v.list->items.size());
      v.list->used = v.list->items.size();
      return {v.list->items.begin() + static_cast<std::ptrdiff_t>(from), v.list->items.end()};
    }
    case Kind::kDict:
      arena.budget.charge_items(v.dict->entries.size());
      for (const auto& entry : v.dict->entries) out.push_back(entry.first);
      return out;
    case Kind::kString:
      for (size_t at = 0; at < v.string->size();) {
        size_t n = 0;
        (void)code_point_at(v.string->bytes, at, n);
        out.push_back(arena.string(slice(*v.string, at, at + n)));
        at += n;
      }
      return out;
    default:
      fault("{} cannot be looped over", type_name(v));
  }
}

bool contains(Arena& arena, const Value& container, const Value& item) {
  if (container.is_string()) {
    if (!item.is_string()) fault("\"in\" looks for a string in a string, not for {}", type_name(item));
    arena.budget.charge_bytes(container.string->size());
    return find(container.string->bytes, item.string->bytes) != std::string_view::npos;
  }
  if (container.kind == Kind::kDict) return look_up(arena, *container.dict, item) != nullptr;
  if (container.is_undefined()) return false;
  if (!container.is_listed())
    fault("\"in\" needs a string, list or dict on its right, got {}", type_name(container));
  if (container.kind == Kind::kGenerator) {
    for (auto& used = container.list->used; used < container.list->items.size();)
      if (equal(arena, container.list->items[used++], item)) return true;
    return false;
  }
  return std::any_of(container.list->items.begin(), container.list->items.end(),
                     [&](const Value& v) { return equal(arena, v, item); });
}

}  // namespace nibble::text::jinja
