// Calls inside templates: arguments, and Python's methods of strings, lists and dicts.
#pragma once
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja_value.h"

namespace nibble::text::jinja {

class Evaluator;

// The arguments of one call. Each is taken by place or name; done() finds those that nobody took.
class Arguments {
 public:
  std::vector<Value> positional;
  std::vector<std::pair<std::string_view, Value>> named;

  // null when it was not given. `name` "" for one that has no name.
  const Value* take(size_t place, std::string_view name);
  Value take(size_t place, std::string_view name, Value otherwise);
  const Value& need(size_t place, std::string_view name, std::string_view callee);
  // A whole number or a fault that names the callee.
  int64_t take_integer(size_t place, std::string_view name, int64_t otherwise, std::string_view callee);
  bool take_bool(size_t place, std::string_view name, bool otherwise);
  // Faults when an argument is left over.
  void done(std::string_view callee) const;

 private:
  size_t places_ = 0;
  size_t names_ = 0;
};

enum class MethodKind : uint8_t { kNone, kKnown, kForbidden };
// Does Python's type of `self` have this method? Forbidden are those that change it.
MethodKind method_kind(const Value& self, std::string_view name);
Value call_method(Arena& arena, const Value& self, std::string_view name, Arguments& args);

// "%s %d" % args.
Value percent_format(Arena& arena, const Str& format, const Value& args);
const Str& string_argument(const Value& v, std::string_view callee);
// s[i], s[i:j:k] of strings and lists with Python's rules; `part` null where left out.
struct SliceParts {
  const Value *start, *stop, *step;
};
Value take_slice(Arena& arena, const Value& of, const SliceParts& parts);

}  // namespace nibble::text::jinja
