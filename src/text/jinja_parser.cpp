#include "text/jinja_parser.h"

#include <algorithm>
#include <optional>

#include "text/jinja_lexer.h"

namespace nibble::text::jinja {
namespace {

class Parser {
 public:
  Parser(std::string_view source, Tree& tree) : tokens_(tokenize(source)), tree_(tree) {}

  void run() {
    tree_.body = statements({});
    if (here().token != Token::kEnd) fail(here().line, "unexpected {}", describe(here()));
  }

 private:
  template <class... Args>
  [[noreturn]] void fail(int line, fmt::format_string<Args...> format, Args&&... args) const {
    throw SyntaxFault{fmt::format(format, std::forward<Args>(args)...), line};
  }

  // Counts the levels the parser is inside; the evaluator recurses along the same levels.
  struct Level {
    explicit Level(Parser& p) : parser(p) {
      if (++parser.depth_ > kMaxDepth)
        parser.fail(parser.here().line, "nested more than {} levels deep", kMaxDepth);
    }
    ~Level() { --parser.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;
    Parser& parser;
  };

  const Lexeme& here() const { return tokens_[at_]; }
  const Lexeme& ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  void next() {
    if (at_ + 1 < tokens_.size()) ++at_;
  }
  bool is_op(std::string_view op) const { return here().token == Token::kOperator && here().text == op; }
  bool is_name(std::string_view name) const { return here().token == Token::kName && here().text == name; }
  bool skip_op(std::string_view op) {
    if (!is_op(op)) return false;
    next();
    return true;
  }
  bool skip_name(std::string_view name) {
    if (!is_name(name)) return false;
    next();
    return true;
  }
  static std::string describe(const Lexeme& l) {
    switch (l.token) {
      case Token::kEnd:
        return "end of the template";
      case Token::kBlockEnd:
        return "end of the tag";
      case Token::kVariableEnd:
        return "end of the expression";
      case Token::kString:
        return "a string";
      default:
        return fmt::format("'{}'", l.text);
    }
  }
  void expect_op(std::string_view op) {
    if (!skip_op(op)) fail(here().line, "expected '{}', got {}", op, describe(here()));
  }
  void expect(Token token, std::string_view what) {
    if (here().token != token) fail(here().line, "expected {}, got {}", what, describe(here()));
    next();
  }
  std::string expect_name() {
    if (here().token != Token::kName) fail(here().line, "expected a name, got {}", describe(here()));
    std::string name = here().text;
    next();
    return name;
  }
  Node* make(NodeType type, int line) {
    Node& n = tree_.nodes.emplace_back();
    n.type = type;
    n.line = line;
    return &n;
  }
  Node* make_name(const std::string& name, int line) {
    Node* n = make(NodeType::kName, line);
    n->name = name;
    n->id = tree_.id_of(name);
    return n;
  }

  // ---- statements ----

  using Ends = std::vector<std::string_view>;

  // Up to a tag in `ends` (whose name is then the current token) or the end of the template.
  Nodes statements(const Ends& ends) {
    const Level level(*this);
    Nodes body;
    for (;;) {
      const int line = here().line;
      switch (here().token) {
        case Token::kEnd:
          if (!ends.empty())
            fail(opened_line_, "{{% {} %}} is not closed by {{% {} %}}", opened_, ends.back());
          return body;
        case Token::kData: {
          Node* n = make(NodeType::kData, line);
          n->constant = constant(here().text);
          body.push_back(n);
          next();
          break;
        }
        case Token::kVariableBegin: {
          next();
          Node* n = make(NodeType::kOutput, line);
          n->first = tuple({});
          expect(Token::kVariableEnd, "}}");
          body.push_back(n);
          break;
        }
        default: {
          expect(Token::kBlockBegin, "a tag");
          if (here().token != Token::kName)
            fail(line, "expected the name of a tag, got {}", describe(here()));
          if (std::find(ends.begin(), ends.end(), here().text) != ends.end()) return body;
          body.push_back(statement());
          expect(Token::kBlockEnd, "%}");
        }
      }
    }
  }

  // The body of a tag whose opening part was just read; the current token is then the tag that ended it.
  Nodes body_until(const std::string& tag, int line, const Ends& ends) {
    skip_op(":");
    expect(Token::kBlockEnd, "%}");
    const auto opened = opened_;
    const int opened_line = opened_line_;
    opened_ = tag;
    opened_line_ = line;
    Nodes body = statements(ends);
    opened_ = opened;
    opened_line_ = opened_line;
    return body;
  }
  // A body that does not share the loops around it.
  Nodes own_body(const std::string& tag, int line, std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    Nodes body = body_until(tag, line, {end});
    loops_ = loops;
    next();
    return body;
  }

  Node* statement() {
    const int line = here().line;
    const std::string tag = expect_name();
    if (tag == "if") return if_statement(line);
    if (tag == "for") return for_statement(line);
    if (tag == "set") return set_statement(line);
    if (tag == "macro") {
      Node* n = make(NodeType::kMacro, line);
      n->name = expect_name();
      n->id = tree_.id_of(n->name);
      signature(n);
      n->body = own_body(tag, line, "endmacro");
      return n;
    }
    if (tag == "call") {
      Node* n = make(NodeType::kCallBlock, line);
      n->name = "caller";
      if (is_op("(")) signature(n);
      n->first = expression();
      if (n->first->type != NodeType::kCall) fail(line, "{{% call %}} needs a call");
      n->body = own_body(tag, line, "endcall");
      return n;
    }
    if (tag == "filter") {
      Node* n = make(NodeType::kFilterBlock, line);
      n->first = filters(nullptr, true);
      n->body = body_until(tag, line, {"endfilter"});
      next();
      return n;
    }
    if (tag == "generation") {
      Node* n = make(NodeType::kGeneration, line);
      tree_.has_generation = true;
      n->body = own_body(tag, line, "endgeneration");
      return n;
    }
    if (tag == "with") {
      Node* n = make(NodeType::kWith, line);
      while (here().token != Token::kBlockEnd) {
        if (!n->items.empty()) expect_op(",");
        n->items.push_back(target({}));
        expect_op("=");
        n->items.push_back(expression());
      }
      n->body = body_until(tag, line, {"endwith"});
      next();
      return n;
    }
    if (tag == "break" || tag == "continue") {
      if (loops_ == 0) fail(line, "{{% {} %}} outside a loop", tag);
      return make(tag == "break" ? NodeType::kBreak : NodeType::kContinue, line);
    }
    fail(line, "the tag {{% {} %}} is not supported", tag);
  }

  // items: conditions; branches: their bodies, then that of the else.
  Node* if_statement(int line) {
    Node* n = make(NodeType::kIf, line);
    for (;;) {
      n->items.push_back(tuple({.conditional = false}));
      n->branches.push_back(body_until("if", line, {"elif", "else", "endif"}));
      const std::string end = expect_name();
      if (end == "elif") continue;
      if (end == "else") {
        n->branches.push_back(body_until("if", line, {"endif"}));
        next();
      }
      return n;
    }
  }

  // first: target; second: what is looped over; third: the inline condition.
  Node* for_statement(int line) {
    Node* n = make(NodeType::kFor, line);
    n->first = target("in");
    if (!skip_name("in")) fail(line, "expected 'in', got {}", describe(here()));
    n->second = tuple({.conditional = false, .end = "recursive"});
    if (skip_name("if")) n->third = expression();
    if (is_name("recursive")) fail(line, "recursive loops are not supported");
    ++loops_;
    n->body = body_until("for", line, {"else", "endfor"});
    --loops_;
    if (expect_name() == "else") {
      n->otherwise = body_until("for", line, {"endfor"});
      next();
    }
    return n;
  }

  // first: target; second: value, or the filters of a block.
  Node* set_statement(int line) {
    Node* to = target({}, true);
    if (skip_op("=")) {
      Node* n = make(NodeType::kSet, line);
      n->first = to;
      n->second = tuple({});
      return n;
    }
    Node* n = make(NodeType::kSetBlock, line);
    n->first = to;
    n->second = filters(nullptr, false);
    n->body = body_until("set", line, {"endset"});
    next();
    return n;
  }

  Node* target(std::string_view end, bool fields = false) {
    Node* n = tuple({.simple = true, .fields = fields, .end = end});
    const auto assignable = [&](const Node* t) {
      return (t->type == NodeType::kName) || (fields && t->type == NodeType::kNamespaceField);
    };
    const bool ok = n->type == NodeType::kTuple ? std::all_of(n->items.begin(), n->items.end(), assignable)
                                                : assignable(n);
    if (!ok) fail(n->line, "cannot assign to this expression");
    return n;
  }

  void signature(Node* n) {
    expect_op("(");
    while (!is_op(")")) {
      if (!n->parameters.empty()) expect_op(",");
      n->parameters.push_back(tree_.id_of(expect_name()));
      if (skip_op("=")) {
        n->defaults.push_back(expression());
      } else if (!n->defaults.empty()) {
        fail(here().line, "a parameter without default follows one with default");
      }
    }
    next();
  }

  // ---- expressions ----

  struct TupleStyle {
    bool conditional = true;   // "a if b" is read
    bool simple = false;       // names and literals only: targets
    bool fields = false;       // ns.name is a target
    bool parentheses = false;  // an empty tuple is allowed
    std::string_view end = {};
  };

  Node* tuple(TupleStyle style) {
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

  Node* expression(bool conditional = true) {
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

  Node* pair(NodeType type, int line, Node* left, Node* right) {
    Node* n = make(type, line);
    n->first = left;
    n->second = right;
    return n;
  }
  Node* disjunction() {
    Node* left = conjunction();
    for (int line = here().line; skip_name("or"); line = here().line)
      left = pair(NodeType::kOr, line, left, conjunction());
    return left;
  }
  Node* conjunction() {
    Node* left = negation();
    for (int line = here().line; skip_name("and"); line = here().line)
      left = pair(NodeType::kAnd, line, left, negation());
    return left;
  }
  Node* negation() {
    const int line = here().line;
    if (!skip_name("not")) return comparison();
    const Level level(*this);
    return pair(NodeType::kNot, line, negation(), nullptr);
  }

  std::optional<Operator> comparison_operator() {
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
  Node* comparison() {
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

  Node* binary(Operator op, int line, Node* left, Node* right) {
    Node* n = pair(NodeType::kBinary, line, left, right);
    n->operators.push_back(op);
    return n;
  }
  Node* sum() {
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
  Node* concatenation() {
    const int line = here().line;
    Node* left = product();
    if (!is_op("~")) return left;
    Node* n = make(NodeType::kConcat, line);
    n->items.push_back(left);
    while (skip_op("~")) n->items.push_back(product());
    return n;
  }
  Node* product() {
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
  Node* power() {
    Node* left = unary();
    for (int line = here().line; skip_op("**"); line = here().line)
      left = binary(Operator::kPower, line, left, unary());
    return left;
  }
  Node* unary(bool with_filter = true) {
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

  Value constant(std::string_view text) { return tree_.constants.string(text); }

  Node* primary(bool fields) {
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

  Node* postfix(Node* n) {
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

  Node* subscript(Node* of) {
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
  Node* subscribed() {
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

  void arguments(Node* n) {
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

  Node* call(Node* of) {
    Node* n = pair(NodeType::kCall, here().line, of, nullptr);
    arguments(n);
    return n;
  }

  std::string dotted_name() {
    std::string name = expect_name();
    while (skip_op(".")) name += "." + expect_name();
    return name;
  }

  Node* filters(Node* n, bool start) {
    while (start || skip_op("|")) {
      start = false;
      Node* f = pair(NodeType::kFilter, here().line, n, nullptr);
      f->name = dotted_name();
      if (is_op("(")) arguments(f);
      n = f;
    }
    return n;
  }

  Node* filters_and_tests(Node* n) {
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

  Node* test(Node* of) {
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

  std::vector<Lexeme> tokens_;
  size_t at_ = 0;
  Tree& tree_;
  int depth_ = 0, loops_ = 0;
  std::string opened_;
  int opened_line_ = 0;
};

}  // namespace

int Tree::id_of(const std::string& name) {
  const auto [it, fresh] = ids.emplace(name, static_cast<int>(names.size()));
  if (fresh) names.push_back(name);
  return it->second;
}

void parse(std::string_view source, Tree& tree) { Parser(source, tree).run(); }

}  // namespace nibble::text::jinja
