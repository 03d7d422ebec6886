// Tokens to a tree, as jinja2's parser with the loopcontrols extension and Transformers' {% generation %}
// reads them.
#pragma once
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/jinja_value.h"

namespace nibble::text::jinja {

enum class NodeType : uint8_t {
  // Expressions.
  kConst,
  kName,
  kList,
  kTuple,
  kDict,
  kConditional,
  kOr,
  kAnd,
  kNot,
  kCompare,
  kBinary,
  kConcat,
  kNegative,
  kPositive,
  kAttribute,
  kItem,
  kSlice,
  kCall,
  kFilter,
  kTest,
  kNamespaceField,
  // Statements.
  kData,
  kOutput,
  kIf,
  kFor,
  kSet,
  kSetBlock,
  kMacro,
  kCallBlock,
  kFilterBlock,
  kWith,
  kGeneration,
  kBreak,
  kContinue,
};

enum class Operator : uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn,
};

struct Node;
using Nodes = std::vector<Node*>;

// One struct for all kinds; what a kind uses is said beside it in jinja_parser.cpp where it is made.
struct Node {
  NodeType type;
  int line;
  Value constant;    // kConst, kData
  std::string name;  // of a variable, attribute, filter, test, macro
  int id = -1;       // the number of `name` as a variable
  Node *first = nullptr, *second = nullptr, *third = nullptr;
  Nodes items;  // elements, positional arguments, operands, targets
  std::vector<Operator> operators;
  std::vector<std::pair<std::string, Node*>> named;  // keyword arguments
  Node *spread = nullptr, *spread_named = nullptr;   // *args, **kwargs
  std::vector<int> parameters;                       // kMacro, kCallBlock
  Nodes defaults;                                    // of the last parameters
  Nodes body, otherwise;
  std::vector<Nodes> branches;  // kIf: one more than `items` when there is an else
};

// A parsed template; const afterwards.
struct Tree {
  Arena constants;
  std::deque<Node> nodes;
  std::vector<std::string> names;  // of variables, by id
  std::unordered_map<std::string, int> ids;
  Nodes body;
  bool has_generation = false;

  int id_of(const std::string& name);
};

// Throws SyntaxFault (jinja_lexer.h) or Fault.
void parse(std::string_view source, Tree& tree);

}  // namespace nibble::text::jinja
