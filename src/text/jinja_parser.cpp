#include "text/jinja_parser.h"

#include <algorithm>

#include "text/jinja_expression_parser.h"

namespace nibble::text::jinja {
namespace {

// Statements: data, output and tags.
class Parser : ExpressionParser {
 public:
  Parser(std::string_view source, Tree& tree) : ExpressionParser(source, tree) {}

  void run() {
    tree().body = statements({});
    if (here().token != Token::kEnd) fail(here().line, "unexpected {}", describe(here()));
  }

 private:
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
      n->id = tree().id_of(n->name);
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
      tree().has_generation = true;
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
      n->parameters.push_back(tree().id_of(expect_name()));
      if (skip_op("=")) {
        n->defaults.push_back(expression());
      } else if (!n->defaults.empty()) {
        fail(here().line, "a parameter without default follows one with default");
      }
    }
    next();
  }

  int loops_ = 0;
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
