// Expressions: names, operators, subscripts, calls and the global functions.
#include <algorithm>
#include <cmath>
#include <ctime>

#include "text/jinja_eval.h"

namespace nibble::text::jinja {
namespace {

constexpr std::string_view kGlobals[] = {"range", "dict", "namespace", "raise_exception", "strftime_now"};
constexpr int64_t kMaxRange = 100'000;  // jinja2's sandbox

[[noreturn]] void undefined_fault(const Value& v, std::string_view action) {
  if (v.name != nullptr) fault("'{}' is undefined{}", *v.name, action);
  fault("a value is undefined{}", action);
}

// By reference: `result` is written while the arguments are evaluated.
int64_t checked(bool overflow, const int64_t& result) {
  if (overflow) fault("a whole number does not fit in 64 bits");
  return result;
}

}  // namespace

Value Evaluator::eval_name(const Node& n) {
  if (const Value* v = variable(n.id)) return *v;
  for (const std::string_view global : kGlobals) {
    if (global != n.name) continue;
    Function* f = arena_.function();
    f->name = global;
    Value v;
    v.kind = Kind::kFunction;
    v.function = f;
    return v;
  }
  return undefined(&n.name);
}

Value Evaluator::eval_dict(const Node& n) {
  std::vector<std::pair<Value, Value>> entries;
  for (size_t i = 0; i + 1 < n.items.size(); i += 2) {
    const Value key = eval(*n.items[i]);
    put(arena_, entries, key, eval(*n.items[i + 1]));
  }
  return arena_.dict(std::move(entries));
}

Value Evaluator::eval_concat(const Node& n) {
  Str out;
  for (const Node* item : n.items) append_string(arena_, out, eval(*item));
  return arena_.string(std::move(out));
}

Value Evaluator::eval_compare(const Node& n) {
  Value left = eval(*n.first);
  for (size_t i = 0; i < n.items.size(); ++i) {
    const Value right = eval(*n.items[i]);
    line_ = n.line;
    bool ok = false;
    switch (n.operators[i]) {
      case Operator::kEqual:
        ok = equal(arena_, left, right);
        break;
      case Operator::kNotEqual:
        ok = !equal(arena_, left, right);
        break;
      case Operator::kIn:
        ok = contains(arena_, right, left);
        break;
      case Operator::kNotIn:
        ok = !contains(arena_, right, left);
        break;
      default: {
        const bool nan = (left.kind == Kind::kFloat && std::isnan(left.real)) ||
                         (right.kind == Kind::kFloat && std::isnan(right.real));
        const int c = compare(arena_, left, right);
        ok = !nan && (n.operators[i] == Operator::kLess        ? c < 0
                      : n.operators[i] == Operator::kLessEqual ? c <= 0
                      : n.operators[i] == Operator::kGreater   ? c > 0
                                                               : c >= 0);
      }
    }
    if (!ok) return boolean(false);
    left = right;
  }
  return boolean(true);
}

Value Evaluator::add(const Value& a, const Value& b) {
  if (a.is_string() && b.is_string()) {
    Str out;
    out.markup = a.string->markup || b.string->markup;
    arena_.budget.charge_text(*a.string);
    arena_.budget.charge_text(*b.string);
    append(out, out.markup && !a.string->markup ? escape_html(*a.string) : *a.string);
    append(out, out.markup && !b.string->markup ? escape_html(*b.string) : *b.string);
    return arena_.string(std::move(out));
  }
  if ((a.kind == Kind::kList || a.kind == Kind::kTuple) && a.kind == b.kind) {
    std::vector<Value> items = a.list->items;
    items.insert(items.end(), b.list->items.begin(), b.list->items.end());
    return arena_.list(a.kind, std::move(items), a.mark);
  }
  return arithmetic(Operator::kAdd, a, b);
}

Value Evaluator::multiply(const Value& a, const Value& b) {
  const bool left = a.is_string() || a.kind == Kind::kList || a.kind == Kind::kTuple;
  const Value &sequence = left ? a : b, &times = left ? b : a;
  if (!(sequence.is_string() || sequence.kind == Kind::kList || sequence.kind == Kind::kTuple) ||
      !times.is_whole())
    return arithmetic(Operator::kMultiply, a, b);
  const int64_t n = std::max<int64_t>(times.whole(), 0);
  if (sequence.is_string()) {
    const Str& s = *sequence.string;
    if (s.size() > 0 && n > static_cast<int64_t>(Budget::kBytes / s.size()))
      arena_.budget.require_size(Budget::kBytes + 1);
    arena_.budget.charge(static_cast<size_t>(n) * (s.size() > 0 ? 1 : 0) / 8);
    Str out;
    for (int64_t i = 0; i < n && s.size() > 0; ++i) append(out, s);
    return arena_.string(std::move(out));
  }
  const std::vector<Value>& items = sequence.list->items;
  if (!items.empty() && n > Budget::kSteps) arena_.budget.charge(Budget::kSteps);
  arena_.budget.charge_items(items.size() * static_cast<size_t>(items.empty() ? 0 : n));
  std::vector<Value> out;
  for (int64_t i = 0; i < n && !items.empty(); ++i) out.insert(out.end(), items.begin(), items.end());
  return arena_.list(sequence.kind, std::move(out), sequence.mark);
}

Value Evaluator::eval_binary(Operator op, const Value& a, const Value& b) {
  if (op == Operator::kAdd) return add(a, b);
  if (op == Operator::kMultiply) return multiply(a, b);
  if (op == Operator::kModulo && a.is_string()) return percent_format(arena_, *a.string, b);
  return arithmetic(op, a, b);
}

Value Evaluator::arithmetic(Operator op, const Value& a, const Value& b) {
  static constexpr std::string_view kSigns[] = {"+", "-", "*", "/", "//", "%", "**"};
  if (a.is_undefined())
    undefined_fault(a, fmt::format(" and cannot be used with {}", kSigns[static_cast<size_t>(op)]));
  if (b.is_undefined())
    undefined_fault(b, fmt::format(" and cannot be used with {}", kSigns[static_cast<size_t>(op)]));
  if (!a.is_number() || !b.is_number())
    fault("cannot compute {} {} {}", type_name(a), kSigns[static_cast<size_t>(op)], type_name(b));
  const bool zero = b.number() == 0;
  if (zero && (op == Operator::kDivide || op == Operator::kFloorDivide || op == Operator::kModulo))
    fault("division by zero");
  if (a.is_whole() && b.is_whole()) {
    const int64_t x = a.whole(), y = b.whole();
    int64_t r = 0;
    switch (op) {
      case Operator::kAdd:
        return integer(checked(__builtin_add_overflow(x, y, &r), r));
      case Operator::kSubtract:
        return integer(checked(__builtin_sub_overflow(x, y, &r), r));
      case Operator::kMultiply:
        return integer(checked(__builtin_mul_overflow(x, y, &r), r));
      case Operator::kDivide:
        return real(static_cast<double>(x) / static_cast<double>(y));
      case Operator::kFloorDivide:
        if (y == -1) return integer(checked(__builtin_sub_overflow(int64_t{0}, x, &r), r));
        return integer(x / y - (x % y != 0 && (x < 0) != (y < 0) ? 1 : 0));
      case Operator::kModulo:
        if (y == -1) return integer(0);
        r = x % y;
        return integer(r != 0 && (r < 0) != (y < 0) ? r + y : r);
      default:
        if (y < 0) return real(std::pow(static_cast<double>(x), static_cast<double>(y)));
        if (x == 0 || x == 1) return integer(y == 0 ? 1 : x);
        if (x == -1) return integer(y % 2 == 0 ? 1 : -1);
        r = 1;
        for (int64_t i = 0; i < y; ++i)
          r = checked(__builtin_mul_overflow(r, x, &r), r);  // at most 63 rounds
        return integer(r);
    }
  }
  const double x = a.number(), y = b.number();
  switch (op) {
    case Operator::kAdd:
      return real(x + y);
    case Operator::kSubtract:
      return real(x - y);
    case Operator::kMultiply:
      return real(x * y);
    case Operator::kDivide:
      return real(x / y);
    case Operator::kFloorDivide:
      return real(std::floor(x / y));
    case Operator::kModulo: {
      const double r = std::fmod(x, y);
      return real(r != 0 && (r < 0) != (y < 0) ? r + y : r);
    }
    default:
      return real(std::pow(x, y));
  }
}

Value Evaluator::eval_sign(const Node& n) {
  const Value v = eval(*n.first);
  line_ = n.line;
  if (v.is_undefined()) undefined_fault(v, "");
  if (!v.is_number()) fault("a sign needs a number, got {}", type_name(v));
  if (n.type == NodeType::kPositive) return v.kind == Kind::kBool ? integer(v.whole()) : v;
  if (v.kind == Kind::kFloat) return real(-v.real);
  int64_t r = 0;
  return integer(checked(__builtin_sub_overflow(int64_t{0}, v.whole(), &r), r));
}

Value Evaluator::attribute_of(const Value& of, const std::string& name) {
  if (of.is_undefined()) undefined_fault(of, fmt::format(", so it has no '{}'", name));
  switch (of.kind) {
    case Kind::kNamespace:
      for (const auto& [key, value] : of.names->entries)
        if (key == name) return value;
      return undefined(&name);
    case Kind::kLoop: {
      const LoopState& loop = *of.loop;
      const auto i = static_cast<int64_t>(loop.index), n = static_cast<int64_t>(loop.items->size());
      if (name == "index") return integer(i + 1);
      if (name == "index0") return integer(i);
      if (name == "revindex") return integer(n - i);
      if (name == "revindex0") return integer(n - i - 1);
      if (name == "first") return boolean(i == 0);
      if (name == "last") return boolean(i + 1 == n);
      if (name == "length") return integer(n);
      if (name == "depth") return integer(1);
      if (name == "depth0") return integer(0);
      if (name == "previtem") return i > 0 ? (*loop.items)[loop.index - 1] : undefined(&name);
      if (name == "nextitem") return i + 1 < n ? (*loop.items)[loop.index + 1] : undefined(&name);
      if (name == "changed") fault("loop.changed is not supported");
      if (name != "cycle") return undefined(&name);
      Function* f = arena_.function();
      f->type = Function::Type::kCycle;
      f->loop = &loop;
      Value v;
      v.kind = Kind::kFunction;
      v.function = f;
      return v;
    }
    case Kind::kDict:
    case Kind::kString:
    case Kind::kList:
    case Kind::kTuple: {
      const MethodKind method = method_kind(of, name);
      if (method != MethodKind::kNone) {
        Function* f = arena_.function();
        f->type = method == MethodKind::kKnown ? Function::Type::kMethod : Function::Type::kForbidden;
        f->name = name;
        f->self = of;
        Value v;
        v.kind = Kind::kFunction;
        v.function = f;
        return v;
      }
      if (of.kind == Kind::kDict)
        if (const Value* v = look_up(*of.dict, name)) return *v;
      return undefined(&name);
    }
    default:
      return undefined(&name);
  }
}

Value Evaluator::item_of(const Value& of, const Value& key) {
  if (of.is_undefined())
    undefined_fault(
        of, key.is_string() ? fmt::format(", so it has no '{}'", key.string->bytes) : ", so it has no items");
  if (of.kind == Kind::kDict) {
    if (key.kind == Kind::kList || key.kind == Kind::kDict) return undefined();
    if (const Value* v = look_up(arena_, *of.dict, key)) return *v;
  }
  if (key.is_string()) {
    if (of.kind == Kind::kDict && method_kind(of, key.string->bytes) == MethodKind::kNone)
      return undefined(&key.string->bytes);
    return attribute_of(of, key.string->bytes);
  }
  const bool indexed = of.is_string() || of.kind == Kind::kList || of.kind == Kind::kTuple ||
                       (of.kind == Kind::kView && of.list->type == "range");
  if (!indexed || !key.is_whole()) return undefined();
  if (of.is_string()) arena_.budget.charge_bytes(of.string->size());
  const int64_t n = length(of), i = key.whole() < 0 ? key.whole() + n : key.whole();
  if (i < 0 || i >= n) return undefined();
  if (!of.is_string()) return of.list->items[static_cast<size_t>(i)];
  const size_t begin = code_point_offset(of.string->bytes, static_cast<size_t>(i));
  size_t size = 0;
  (void)code_point_at(of.string->bytes, begin, size);
  return arena_.string(slice(*of.string, begin, begin + size));
}

Value Evaluator::eval_item(const Node& n) {
  const Value of = eval(*n.first);
  if (n.second->type != NodeType::kSlice) {
    const Value key = eval(*n.second);
    line_ = n.line;
    return item_of(of, key);
  }
  Value values[3];
  const Value* parts[3] = {};
  for (size_t i = 0; i < 3; ++i) {
    if (n.second->items[i] == nullptr) continue;
    values[i] = eval(*n.second->items[i]);
    parts[i] = &values[i];
  }
  line_ = n.line;
  if (of.is_undefined()) undefined_fault(of, ", so it has no slice");
  if (!of.is_string() && of.kind != Kind::kList && of.kind != Kind::kTuple &&
      !(of.kind == Kind::kView && of.list->type == "range"))
    return undefined();
  return take_slice(arena_, of, {parts[0], parts[1], parts[2]});
}

Arguments Evaluator::arguments(const Node& n) {
  Arguments args;
  args.positional.reserve(n.items.size());
  for (const Node* item : n.items) args.positional.push_back(eval(*item));
  for (const auto& [name, item] : n.named) args.named.emplace_back(name, eval(*item));
  if (n.spread != nullptr)
    for (const Value& v : iterate(arena_, eval(*n.spread))) args.positional.push_back(v);
  if (n.spread_named != nullptr) {
    const Value more = eval(*n.spread_named);
    if (more.kind != Kind::kDict) fault("** needs a dict, got {}", type_name(more));
    for (const auto& [key, value] : more.dict->entries)
      args.named.emplace_back(string_argument(key, "**").bytes, value);
  }
  return args;
}

Value Evaluator::eval_call(const Node& n) {
  const Node& callee = *n.first;
  if (callee.type == NodeType::kAttribute) {  // a method: no need to make a function of it
    const Value of = eval(*callee.first);
    if (method_kind(of, callee.name) == MethodKind::kKnown) {
      Arguments args = arguments(n);
      line_ = n.line;
      return call_method(arena_, of, callee.name, args);
    }
    line_ = n.line;
    const Value f = attribute_of(of, callee.name);
    Arguments args = arguments(n);
    line_ = n.line;
    return call(f, callee.name, args);
  }
  const Value f = eval(callee);
  Arguments args = arguments(n);
  line_ = n.line;
  return call(f, callee.name, args);
}

Value Evaluator::call(const Value& callee, std::string_view shown, Arguments& args) {
  if (callee.is_undefined()) undefined_fault(callee, " and cannot be called");
  if (callee.kind != Kind::kFunction) fault("{} '{}' cannot be called", type_name(callee), shown);
  const Function& f = *callee.function;
  switch (f.type) {
    case Function::Type::kMethod:
      return call_method(arena_, f.self, f.name, args);
    case Function::Type::kMacro:
      return call_macro(f, args);
    case Function::Type::kForbidden:
      fault("{}.{}() changes its object, which templates may not do", type_name(f.self), f.name);
    case Function::Type::kCycle:
      if (args.positional.empty()) fault("loop.cycle() needs arguments");
      return args.positional[f.loop->index % args.positional.size()];
    default:
      return call_global(f.name, args);
  }
}

Value Evaluator::call_global(std::string_view name, Arguments& args) {
  if (name == "range") return make_range(args);
  if (name == "namespace") return make_namespace(args);
  if (name == "dict") return make_dict(args);
  if (name == "raise_exception") {
    Str text;
    append_string(arena_, text, args.need(0, "message", name));
    throw Fault{"the template refuses these messages: " + text.bytes};
  }
  const std::string format = string_argument(args.need(0, "format", name), name).bytes;
  args.done(name);
  std::tm tm{};
  const std::time_t now = clock_.has_value() ? static_cast<std::time_t>(*clock_) : std::time(nullptr);
  const bool ok = clock_.has_value() ? gmtime_r(&now, &tm) != nullptr : localtime_r(&now, &tm) != nullptr;
  if (!ok || format.size() > 200)
    fault("strftime_now(): cannot write the time as \"{}\"", format.substr(0, 40));
  char buffer[4096];
  return arena_.string(std::string_view(buffer, std::strftime(buffer, sizeof buffer, format.c_str(), &tm)));
}

Value Evaluator::make_range(Arguments& args) {
  int64_t start = 0, stop = 0;
  if (args.positional.size() == 1) {
    stop = args.take_integer(0, "", 0, "range");
  } else {
    (void)args.need(1, "", "range");
    start = args.take_integer(0, "", 0, "range");
    stop = args.take_integer(1, "", 0, "range");
  }
  const int64_t step = args.take_integer(2, "", 1, "range");
  args.done("range");
  if (step == 0) fault("range() needs a step other than 0");
  const auto width = static_cast<__int128>(stop) - start;
  const __int128 count = (width > 0) == (step > 0) ? (width + step - (step > 0 ? 1 : -1)) / step : 0;
  if (count > kMaxRange) fault("range() of more than {} numbers", kMaxRange);
  arena_.budget.charge_items(static_cast<size_t>(count));
  std::vector<Value> items;
  for (int64_t i = 0; i < static_cast<int64_t>(count); ++i) items.push_back(integer(start + i * step));
  return arena_.list(Kind::kView, std::move(items), {}, "range");
}

Value Evaluator::make_dict(Arguments& args) {
  std::vector<std::pair<Value, Value>> entries;
  if (const Value* from = args.take(0, "")) {
    if (from->kind == Kind::kDict) {
      entries = from->dict->entries;
    } else {
      for (const Value& item : iterate(arena_, *from)) {
        const std::vector<Value> both = iterate(arena_, item);
        if (both.size() != 2) fault("dict() needs pairs, got {} values", both.size());
        put(arena_, entries, both[0], both[1]);
      }
    }
  }
  for (const auto& [key, value] : std::vector(args.named))
    put(arena_, entries, arena_.string(key), *args.take(SIZE_MAX, key));
  args.done("dict");
  return arena_.dict(std::move(entries));
}

Value Evaluator::make_namespace(Arguments& args) {
  const Value entries = make_dict(args);
  const Value v = arena_.name_space();
  for (const auto& [key, value] : entries.dict->entries)
    v.names->entries.emplace_back(string_argument(key, "namespace").bytes, value);
  return v;
}

Value Evaluator::eval_filter(const Node& n, const Value* input) {
  std::vector<const Node*> chain;
  const Node* from = &n;
  for (; from != nullptr && from->type == NodeType::kFilter; from = from->first) chain.push_back(from);
  // Filters of a block have no expression at the end of their chain: the block's text stands there.
  Value v = from != nullptr ? eval(*from) : input != nullptr ? *input : undefined();
  for (auto link = chain.rbegin(); link != chain.rend(); ++link) {
    Arguments args = arguments(**link);
    line_ = (*link)->line;
    arena_.budget.charge(1);
    v = apply_filter(*this, (*link)->name, v, args);
  }
  return v;
}

}  // namespace nibble::text::jinja
