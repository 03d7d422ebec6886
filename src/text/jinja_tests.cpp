// Tests ("is …"), as jinja2's.
#include <algorithm>

#include "text/jinja_eval.h"

namespace nibble::text::jinja {
namespace {

bool same_object(const Value& a, const Value& b) {
  if (a.kind != b.kind) return false;
  switch (a.kind) {
    case Kind::kNone:
      return true;
    case Kind::kBool:
      return a.boolean == b.boolean;
    case Kind::kInt:
      return a.integer == b.integer;
    case Kind::kString:
      return a.string == b.string || a.string->bytes == b.string->bytes;
    case Kind::kDict:
      return a.dict == b.dict;
    case Kind::kNamespace:
      return a.names == b.names;
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kView:
    case Kind::kGenerator:
      return a.list == b.list;
    default:
      return false;
  }
}

bool case_is(Evaluator& e, const Value& v, std::string_view method) {
  Arguments none;
  return truth(call_method(e.arena(), to_string(e.arena(), v), method, none));
}

int64_t whole_of(const Value& v, std::string_view test) {
  if (!v.is_whole()) fault("the test '{}' needs a whole number, got {}", test, type_name(v));
  return v.whole();
}

using Test = bool (*)(Evaluator& e, const Value& v, const Value& other);

// Tests of one value.
constexpr std::pair<std::string_view, bool (*)(Evaluator& e, const Value& v)> kUnary[] = {
    {"boolean", [](Evaluator&, const Value& v) { return v.kind == Kind::kBool; }},
    {"callable", [](Evaluator&, const Value& v) { return v.kind == Kind::kFunction; }},
    {"defined", [](Evaluator&, const Value& v) { return !v.is_undefined(); }},
    {"escaped", [](Evaluator&, const Value& v) { return v.is_string() && v.string->markup; }},
    {"even", [](Evaluator&, const Value& v) { return whole_of(v, "even") % 2 == 0; }},
    {"false", [](Evaluator&, const Value& v) { return v.kind == Kind::kBool && !v.boolean; }},
    {"float", [](Evaluator&, const Value& v) { return v.kind == Kind::kFloat; }},
    {"integer", [](Evaluator&, const Value& v) { return v.kind == Kind::kInt; }},
    {"iterable",
     [](Evaluator&, const Value& v) {
       return v.is_string() || v.is_listed() || v.kind == Kind::kDict || v.is_undefined() ||
              v.kind == Kind::kLoop;
     }},
    {"lower", [](Evaluator& e, const Value& v) { return case_is(e, v, "islower"); }},
    {"mapping", [](Evaluator&, const Value& v) { return v.kind == Kind::kDict; }},
    {"none", [](Evaluator&, const Value& v) { return v.kind == Kind::kNone; }},
    {"number", [](Evaluator&, const Value& v) { return v.is_number(); }},
    {"odd", [](Evaluator&, const Value& v) { return whole_of(v, "odd") % 2 != 0; }},
    {"sequence",
     [](Evaluator&, const Value& v) {
       return v.is_string() || v.kind == Kind::kList || v.kind == Kind::kTuple || v.kind == Kind::kDict ||
              v.is_undefined() || (v.kind == Kind::kView && v.list->type == "range");
     }},
    {"string", [](Evaluator&, const Value& v) { return v.is_string(); }},
    {"true", [](Evaluator&, const Value& v) { return v.kind == Kind::kBool && v.boolean; }},
    {"undefined", [](Evaluator&, const Value& v) { return v.is_undefined(); }},
    {"upper", [](Evaluator& e, const Value& v) { return case_is(e, v, "isupper"); }},
};

bool test_equal(Evaluator& e, const Value& a, const Value& b) { return equal(e.arena(), a, b); }
bool test_unequal(Evaluator& e, const Value& a, const Value& b) { return !equal(e.arena(), a, b); }
bool test_less(Evaluator& e, const Value& a, const Value& b) { return compare(e.arena(), a, b) < 0; }
bool test_at_most(Evaluator& e, const Value& a, const Value& b) { return compare(e.arena(), a, b) <= 0; }
bool test_greater(Evaluator& e, const Value& a, const Value& b) { return compare(e.arena(), a, b) > 0; }
bool test_at_least(Evaluator& e, const Value& a, const Value& b) { return compare(e.arena(), a, b) >= 0; }

// Tests of a value against another.
constexpr std::pair<std::string_view, Test> kBinary[] = {
    {"==", test_equal},
    {"eq", test_equal},
    {"equalto", test_equal},
    {"!=", test_unequal},
    {"ne", test_unequal},
    {"<", test_less},
    {"lt", test_less},
    {"lessthan", test_less},
    {"<=", test_at_most},
    {"le", test_at_most},
    {">", test_greater},
    {"gt", test_greater},
    {"greaterthan", test_greater},
    {">=", test_at_least},
    {"ge", test_at_least},
    {"in", [](Evaluator& e, const Value& v, const Value& other) { return contains(e.arena(), other, v); }},
    {"sameas", [](Evaluator&, const Value& v, const Value& other) { return same_object(v, other); }},
    {"divisibleby",
     [](Evaluator&, const Value& v, const Value& other) {
       const int64_t by = whole_of(other, "divisibleby");
       if (by == 0) fault("division by zero");
       return by == -1 || whole_of(v, "divisibleby") % by == 0;
     }},
};

}  // namespace

bool apply_test(Evaluator& e, std::string_view name, const Value& input, Arguments& args) {
  for (const auto& [known, test] : kUnary) {
    if (known != name) continue;
    args.done(name);
    return test(e, input);
  }
  for (const auto& [known, test] : kBinary) {
    if (known != name) continue;
    const Value other = args.need(0, "", name);
    args.done(name);
    return test(e, input, other);
  }
  fault("the test '{}' is not supported", name);
}

}  // namespace nibble::text::jinja
