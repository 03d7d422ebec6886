// Expressions of templates, by precedence: what jinja_parser.cpp reads inside tags.
#pragma once
#include <algorithm>
#include <optional>

#include "text/jinja_lexer.h"
#include "text/jinja_parser.h"

namespace nibble::text::jinja {

class ExpressionParser {
 protected:
  ExpressionParser(std::string_view source, Tree& tree) : tokens_(tokenize(source)), tree_(tree) {}

  template <class... Args>
  [[noreturn]] void fail(int line, fmt::format_string<Args...> format, Args&&... args) const {
    throw SyntaxFault{fmt::format(format, std::forward<Args>(args)...), line};
  }

  // Counts the levels the parser is inside; the evaluator recurses along the same levels.
  struct Level {
    explicit Level(ExpressionParser& p) : parser(p) {
      if (++parser.depth_ > kMaxDepth)
        parser.fail(parser.here().line, "nested more than {} levels deep", kMaxDepth);
    }
    ~Level() { --parser.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;
    ExpressionParser& parser;
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

  struct TupleStyle {
    bool conditional = true;   // "a if b" is read
    bool simple = false;       // names and literals only: targets
    bool fields = false;       // ns.name is a target
    bool parentheses = false;  // an empty tuple is allowed
    std::string_view end = {};
  };
  Node* tuple(TupleStyle style);
  Node* expression(bool conditional = true);
  Value constant(std::string_view text);
  Node* primary(bool fields);
  Node* filters(Node* n, bool start);

  Tree& tree() { return tree_; }

 private:
  Node* pair(NodeType type, int line, Node* left, Node* right);
  Node* disjunction();
  Node* conjunction();
  Node* negation();
  std::optional<Operator> comparison_operator();
  Node* comparison();
  Node* binary(Operator op, int line, Node* left, Node* right);
  Node* sum();
  Node* concatenation();
  Node* product();
  Node* power();
  Node* unary(bool with_filter = true);
  Node* postfix(Node* n);
  Node* subscript(Node* of);
  Node* subscribed();
  void arguments(Node* n);
  Node* call(Node* of);
  std::string dotted_name();
  Node* filters_and_tests(Node* n);
  Node* test(Node* of);

  std::vector<Lexeme> tokens_;
  size_t at_ = 0;
  Tree& tree_;
  int depth_ = 0;
};

}  // namespace nibble::text::jinja
