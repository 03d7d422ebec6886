// Template source to tokens, as jinja2's lexer with trim_blocks and lstrip_blocks cuts them.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja_string.h"

namespace nibble::text::jinja {

enum class Token : uint8_t {
  kData,
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Lexeme {
  Token token;
  int line;
  std::string text;  // data, name, decoded string, operator, digits
  int64_t integer = 0;
  double real = 0;
};

// A Fault that also knows its line.
struct SyntaxFault {
  std::string message;
  int line;
};

// The list ends with kEnd. Comments are gone; raw blocks are data. Throws SyntaxFault.
std::vector<Lexeme> tokenize(std::string_view source);

}  // namespace nibble::text::jinja
