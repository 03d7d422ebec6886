// Runs a parsed template: statements, scopes, expressions, macros, and the turn each written character
// belongs to.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "text/jinja_call.h"
#include "text/jinja_parser.h"

namespace nibble::text::jinja {

// Variables of one level; the chain of parents ends at the variables given to the rendering.
struct Scope {
  Scope* parent = nullptr;
  std::vector<std::pair<int, Value>> variables;
};

class Evaluator {
 public:
  // `clock`: what strftime_now() tells, in seconds since 1970 UTC; nullopt for the time of day here.
  Evaluator(const Tree& tree, Arena& arena, std::optional<int64_t> clock)
      : tree_(tree), arena_(arena), clock_(clock) {}

  void define(const std::string& name, const Value& value);
  // Throws Fault; line() then tells where.
  Str render();
  int line() const { return line_; }

  // For filters and tests that take the name of another one.
  Arena& arena() { return arena_; }
  Value item_of(const Value& of, const Value& key);

 private:
  enum class Flow : uint8_t { kNext, kBreak, kContinue };
  struct Guard;

  // Statements (jinja_eval.cpp).
  Flow run(const Nodes& body);
  Flow run(const Node& n);
  Flow run_for(const Node& n);
  Flow run_inner(const Nodes& body);
  Flow captured(const Nodes& body, Str& out);
  Value filtered(const Node* filters, const Value& input);
  void write(const Str& s);
  void assign(const Node& target, const Value& value);
  Value* variable(int id);
  void set_variable(int id, const Value& value);
  Value call_macro(const Function& f, Arguments& args);
  Scope* new_scope(Scope* parent) { return &scopes_.emplace_back(Scope{parent, {}}); }

  // Expressions (jinja_expr.cpp).
  Value eval(const Node& n);
  Value eval_name(const Node& n);
  Value eval_dict(const Node& n);
  Value eval_concat(const Node& n);
  Value eval_compare(const Node& n);
  Value eval_binary(Operator op, const Value& a, const Value& b);
  Value add(const Value& a, const Value& b);
  Value multiply(const Value& a, const Value& b);
  Value arithmetic(Operator op, const Value& a, const Value& b);
  Value eval_sign(const Node& n);
  Value eval_item(const Node& n);
  Value eval_call(const Node& n);
  Value eval_filter(const Node& n, const Value* input);
  Value attribute_of(const Value& of, const std::string& name);
  Value call(const Value& callee, std::string_view shown, Arguments& args);
  Value call_global(std::string_view name, Arguments& args);
  Value make_namespace(Arguments& args);
  Value make_dict(Arguments& args);
  Value make_range(Arguments& args);
  Arguments arguments(const Node& n);

  const Tree& tree_;
  Arena& arena_;
  std::optional<int64_t> clock_;
  Scope root_;
  Scope* scope_ = &root_;
  std::deque<Scope> scopes_;
  Str* out_ = nullptr;
  int line_ = 1;
  int depth_ = 0, macro_depth_ = 0, loop_depth_ = 0;
  int32_t turn_ = -1;
  bool generation_ = false;
};

// |name (jinja_filters.cpp). Faults when the filter is not known.
Value apply_filter(Evaluator& e, std::string_view name, const Value& input, Arguments& args);
// is name (jinja_tests.cpp).
bool apply_test(Evaluator& e, std::string_view name, const Value& input, Arguments& args);

}  // namespace nibble::text::jinja
