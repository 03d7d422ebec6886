#include "text/jinja_expression_parser.h"

namespace nibble::text::jinja {

Node* ExpressionParser::tuple(TupleStyle style) {
  const int line = here().line;
  Nodes items;
  bool is_tuple = false;
  for (;;) {
    if (!items.empty()) expect_op(",");
    if (here().token == Token::kVariableEnd || here().token == Token::kBlockEnd || is_op(")") ||
        (!style.end.empty() && is_name(style.end)))
      break;
    items.push_back(style.simple ? primary(style.fields) : expression(style.conditional));
    if (!is_op(",")) break;
    is_tuple = true;
  }
  if (!is_tuple) {
    if (!items.empty()) return items[0];
    if (!style.parentheses) fail(line, "expected an expression, got {}", describe(here()));
  }
  Node* n = make(NodeType::kTuple, line);
  n->items = std::move(items);
  return n;
}

Node* ExpressionParser::expression(bool conditional) {
  const Level level(*this);
  if (!conditional) return disjunction();
  const int line = here().line;
  Node* left = disjunction();
  while (skip_name("if")) {  // first: condition; second: value; third: other value
    Node* n = make(NodeType::kConditional, line);
    n->second = left;
    n->first = disjunction();
    if (skip_name("else")) n->third = expression();
    left = n;
  }
  return left;
}

Node* ExpressionParser::pair(NodeType type, int line, Node* left, Node* right) {
  Node* n = make(type, line);
  n->first = left;
  n->second = right;
  return n;
}
Node* ExpressionParser::disjunction() {
  Node* left = conjunction();
  for (int line = here().line; skip_name("or"); line = here().line)
    left = pair(NodeType::kOr, line, left, conjunction());
  return left;
}
Node* ExpressionParser::conjunction() {
  Node* left = negation();
  for (int line = here().line; skip_name("and"); line = here().line)
    left = pair(NodeType::kAnd, line, left, negation());
  return left;
}
Node* ExpressionParser::negation() {
  const int line = here().line;
  if (!skip_name("not")) return comparison();
  const Level level(*this);
  return pair(NodeType::kNot, line, negation(), nullptr);
}

std::optional<Operator> ExpressionParser::comparison_operator() {
  static constexpr std::pair<std::string_view, Operator> kOperators[] = {
      {"==", Operator::kEqual},     {"!=", Operator::kNotEqual}, {"<", Operator::kLess},
      {"<=", Operator::kLessEqual}, {">", Operator::kGreater},   {">=", Operator::kGreaterEqual}};
  for (const auto& [text, op] : kOperators)
    if (skip_op(text)) return op;
  if (skip_name("in")) return Operator::kIn;
  if (is_name("not") && ahead().token == Token::kName && ahead().text == "in") {
    next();
    next();
    return Operator::kNotIn;
  }
  return std::nullopt;
}
// first op items[0] op items[1] …
Node* ExpressionParser::comparison() {
  const int line = here().line;
  Node* left = sum();
  Node* n = nullptr;
  while (const auto op = comparison_operator()) {
    if (n == nullptr) n = pair(NodeType::kCompare, line, left, nullptr);
    n->operators.push_back(*op);
    n->items.push_back(sum());
  }
  return n != nullptr ? n : left;
}

Node* ExpressionParser::binary(Operator op, int line, Node* left, Node* right) {
  Node* n = pair(NodeType::kBinary, line, left, right);
  n->operators.push_back(op);
  return n;
}
Node* ExpressionParser::sum() {
  Node* left = concatenation();
  for (;;) {
    const int line = here().line;
    if (skip_op("+")) {
      left = binary(Operator::kAdd, line, left, concatenation());
    } else if (skip_op("-")) {
      left = binary(Operator::kSubtract, line, left, concatenation());
    } else {
      return left;
    }
  }
}
Node* ExpressionParser::concatenation() {
  const int line = here().line;
  Node* left = product();
  if (!is_op("~")) return left;
  Node* n = make(NodeType::kConcat, line);
  n->items.push_back(left);
  while (skip_op("~")) n->items.push_back(product());
  return n;
}
Node* ExpressionParser::product() {
  static constexpr std::pair<std::string_view, Operator> kOperators[] = {{"*", Operator::kMultiply},
                                                                         {"/", Operator::kDivide},
                                                                         {"//", Operator::kFloorDivide},
                                                                         {"%", Operator::kModulo}};
  Node* left = power();
  for (bool more = true; more;) {
    more = false;
    const int line = here().line;
    for (const auto& [text, op] : kOperators) {
      if (!skip_op(text)) continue;
      left = binary(op, line, left, power());
      more = true;
      break;
    }
  }
  return left;
}
Node* ExpressionParser::power() {
  Node* left = unary();
  for (int line = here().line; skip_op("**"); line = here().line)
    left = binary(Operator::kPower, line, left, unary());
  return left;
}
Node* ExpressionParser::unary(bool with_filter) {
  const int line = here().line;
  Node* n = nullptr;
  if (is_op("-") || is_op("+")) {
    const Level level(*this);
    const auto type = is_op("-") ? NodeType::kNegative : NodeType::kPositive;
    next();
    n = pair(type, line, unary(false), nullptr);
  } else {
    n = primary(false);
  }
  n = postfix(n);
  return with_filter ? filters_and_tests(n) : n;
}

Value ExpressionParser::constant(std::string_view text) { return tree_.constants.string(text); }

Node* ExpressionParser::primary(bool fields) {
  const Lexeme& l = here();
  const int line = l.line;
  switch (l.token) {
    case Token::kName: {
      next();
      if (l.text == "true" || l.text == "True" || l.text == "false" || l.text == "False") {
        Node* n = make(NodeType::kConst, line);
        n->constant = boolean(l.text[0] == 't' || l.text[0] == 'T');
        return n;
      }
      if (l.text == "none" || l.text == "None") {
        Node* n = make(NodeType::kConst, line);
        n->constant = none();
        return n;
      }
      if (fields && skip_op(".")) {
        Node* n = make_name(l.text, line);
        n->type = NodeType::kNamespaceField;
        n->name = expect_name();
        return n;
      }
      return make_name(l.text, line);
    }
    case Token::kString: {
      std::string text;
      for (; here().token == Token::kString; next()) text += here().text;
      Node* n = make(NodeType::kConst, line);
      n->constant = constant(text);
      return n;
    }
    case Token::kInteger:
    case Token::kFloat: {
      Node* n = make(NodeType::kConst, line);
      n->constant = l.token == Token::kInteger ? integer(l.integer) : real(l.real);
      next();
      return n;
    }
    default:
      break;
  }
  if (skip_op("(")) {
    Node* n = tuple({.parentheses = true});
    expect_op(")");
    return n;
  }
  if (skip_op("[")) {
    Node* n = make(NodeType::kList, line);
    while (!is_op("]")) {
      if (!n->items.empty()) expect_op(",");
      if (is_op("]")) break;
      n->items.push_back(expression());
    }
    next();
    return n;
  }
  if (skip_op("{")) {  // items: key, value, key, value …
    Node* n = make(NodeType::kDict, line);
    while (!is_op("}")) {
      if (!n->items.empty()) expect_op(",");
      if (is_op("}")) break;
      n->items.push_back(expression());
      expect_op(":");
      n->items.push_back(expression());
    }
    next();
    return n;
  }
  fail(line, "unexpected {}", describe(l));
}

Node* ExpressionParser::postfix(Node* n) {
  for (;;) {
    if (is_op(".") || is_op("[")) {
      n = subscript(n);
    } else if (is_op("(")) {
      n = call(n);
    } else {
      return n;
    }
  }
}

Node* ExpressionParser::subscript(Node* of) {
  const int line = here().line;
  if (skip_op(".")) {
    if (here().token == Token::kInteger) {
      Node* n = pair(NodeType::kItem, line, of, make(NodeType::kConst, line));
      n->second->constant = integer(here().integer);
      next();
      return n;
    }
    Node* n = pair(NodeType::kAttribute, line, of, nullptr);
    n->name = expect_name();
    return n;
  }
  expect_op("[");
  Node* n = pair(NodeType::kItem, line, of, subscribed());
  if (is_op(",")) fail(line, "a subscript with several values is not supported");
  expect_op("]");
  return n;
}

// items of a slice: start, stop, step, null where left out.
Node* ExpressionParser::subscribed() {
  const int line = here().line;
  Node* start = is_op(":") ? nullptr : expression();
  if (!skip_op(":")) return start;
  Node* n = make(NodeType::kSlice, line);
  const auto part = [&]() -> Node* {
    return is_op("]") || is_op(",") || is_op(":") ? nullptr : expression();
  };
  n->items = {start, part(), nullptr};
  if (skip_op(":")) n->items[2] = part();
  return n;
}

void ExpressionParser::arguments(Node* n) {
  const int line = here().line;
  expect_op("(");
  for (bool first = true; !is_op(")"); first = false) {
    if (!first) {
      expect_op(",");
      if (is_op(")")) break;
    }
    const bool named =
        here().token == Token::kName && ahead().token == Token::kOperator && ahead().text == "=";
    const bool last = n->spread_named != nullptr;
    if (skip_op("*")) {
      if (last || n->spread != nullptr) fail(line, "invalid arguments");
      n->spread = expression();
    } else if (skip_op("**")) {
      if (last) fail(line, "invalid arguments");
      n->spread_named = expression();
    } else if (named) {
      if (last) fail(line, "invalid arguments");
      std::string name = expect_name();
      next();
      n->named.emplace_back(std::move(name), expression());
    } else {
      if (last || n->spread != nullptr || !n->named.empty())
        fail(line, "a positional argument follows a named one");
      n->items.push_back(expression());
    }
  }
  next();
}

Node* ExpressionParser::call(Node* of) {
  Node* n = pair(NodeType::kCall, here().line, of, nullptr);
  arguments(n);
  return n;
}

std::string ExpressionParser::dotted_name() {
  std::string name = expect_name();
  while (skip_op(".")) name += "." + expect_name();
  return name;
}

Node* ExpressionParser::filters(Node* n, bool start) {
  while (start || skip_op("|")) {
    start = false;
    Node* f = pair(NodeType::kFilter, here().line, n, nullptr);
    f->name = dotted_name();
    if (is_op("(")) arguments(f);
    n = f;
  }
  return n;
}

Node* ExpressionParser::filters_and_tests(Node* n) {
  for (;;) {
    if (is_op("|")) {
      n = filters(n, false);
    } else if (is_name("is")) {
      n = test(n);
    } else if (is_op("(")) {
      n = call(n);
    } else {
      return n;
    }
  }
}

Node* ExpressionParser::test(Node* of) {
  const int line = here().line;
  next();
  const bool negated = skip_name("not");
  Node* n = pair(NodeType::kTest, line, of, nullptr);
  n->name = dotted_name();
  if (is_op("(")) {
    arguments(n);
  } else {
    const bool value = here().token == Token::kName || here().token == Token::kString ||
                       here().token == Token::kInteger || here().token == Token::kFloat || is_op("[") ||
                       is_op("{");
    if (is_name("is")) fail(line, "tests cannot be chained with 'is'");
    if (value && !is_name("else") && !is_name("or") && !is_name("and"))
      n->items.push_back(postfix(primary(false)));
  }
  return negated ? pair(NodeType::kNot, line, n, nullptr) : n;
}

}  // namespace nibble::text::jinja
