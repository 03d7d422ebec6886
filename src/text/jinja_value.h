// Values of the template interpreter, with Python's behaviour: truth, equality, order, str() and repr().
//
// A Value is a small handle; what it points at lives in the Arena of one rendering and goes with it, so
// cycles through namespaces cost nothing and nothing is freed recursively. Lists, tuples and dicts never
// change after they were made (Transformers renders in an immutable sandbox).
#pragma once
#include <fmt/core.h>

#include <deque>
#include <utility>

#include "base/json_fwd.h"
#include "text/jinja_string.h"

namespace nibble::text::jinja {

template <class... Args>
[[noreturn]] void fault(fmt::format_string<Args...> format, Args&&... args) {
  throw Fault{fmt::format(format, std::forward<Args>(args)...)};
}

enum class Kind : uint8_t {
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kList,
  kTuple,
  kView,       // range(), dict.keys() …: has a length, can be looped over again
  kGenerator,  // what map() and select() give: always true, without length, used up by the first loop
  kDict,
  kNamespace,
  kLoop,
  kFunction,
};

struct List;
struct Dict;
struct Namespace;
struct LoopState;
struct Function;

struct Value {
  Kind kind = Kind::kUndefined;
  Mark mark;
  union {
    bool boolean;
    int64_t integer;
    double real;
    const Str* string;
    List* list;  // kList, kTuple, kView, kGenerator
    const Dict* dict;
    Namespace* names;
    const LoopState* loop;
    const Function* function;
    const std::string* name = nullptr;  // kUndefined: what was looked for, or null
  };

  bool is_string() const { return kind == Kind::kString; }
  bool is_undefined() const { return kind == Kind::kUndefined; }
  bool is_listed() const { return kind >= Kind::kList && kind <= Kind::kGenerator; }
  bool is_number() const { return kind == Kind::kBool || kind == Kind::kInt || kind == Kind::kFloat; }
  bool is_whole() const { return kind == Kind::kBool || kind == Kind::kInt; }
  int64_t whole() const { return kind == Kind::kBool ? boolean : integer; }
  double number() const { return kind == Kind::kFloat ? real : static_cast<double>(whole()); }
};

struct List {
  std::vector<Value> items;
  size_t used = 0;                 // kGenerator: items already taken
  std::string_view type = "list";  // Python's name of a view: "range", "dict_keys" …
};

struct Dict {
  std::vector<std::pair<Value, Value>> entries;
  int32_t message = -1;  // its index when it is one of the messages themselves
};

struct Namespace {
  std::vector<std::pair<std::string, Value>> entries;
};

struct LoopState {
  const std::vector<Value>* items = nullptr;
  size_t index = 0;
};

struct Node;
struct Scope;

// Something that can be called.
struct Function {
  enum class Type : uint8_t { kGlobal, kMethod, kMacro, kCycle, kForbidden };
  Type type = Type::kGlobal;
  std::string_view name;        // of a global or method; it outlives the rendering
  Value self;                   // kMethod
  const Node* macro = nullptr;  // kMacro: a macro or the body of {% call %}, which sees `scope`
  Scope* scope = nullptr;
  const LoopState* loop = nullptr;  // kCycle
};

Value undefined(const std::string* name = nullptr);
Value none(Mark mark = {});
Value boolean(bool v, Mark mark = {});
Value integer(int64_t v, Mark mark = {});
Value real(double v, Mark mark = {});

class Arena {
 public:
  Budget budget;
  Value string(Str s);
  Value string(std::string_view text, Mark mark = {});
  Value list(Kind kind, std::vector<Value> items, Mark mark = {}, std::string_view type = "list");
  Value dict(std::vector<std::pair<Value, Value>> entries, Mark mark = {}, int32_t message = -1);
  Value undefined_named(std::string name);
  Function* function();
  LoopState* loop();
  Value name_space();

 private:
  std::deque<Str> strings_;
  std::deque<List> lists_;
  std::deque<Dict> dicts_;
  std::deque<std::string> names_;
  std::deque<Function> functions_;
  std::deque<LoopState> loops_;
  std::deque<Namespace> spaces_;
};

// JSON as the template sees it; of the messages, each keeps its index, and its role the origin kRole.
Value from_json(Arena& arena, const Json& json, Mark mark);
Value messages_from_json(Arena& arena, const Json& messages);

// Python's type name for messages: "str", "NoneType", "dict" …
std::string_view type_name(const Value& v);
bool truth(const Value& v);
bool equal(Arena& arena, const Value& a, const Value& b, int depth = 0);
// <0, 0, >0. Faults where Python refuses to compare.
int compare(Arena& arena, const Value& a, const Value& b, int depth = 0);
// null when there is none. Keys equal as Python's are (1 == True == 1.0).
const Value* look_up(Arena& arena, const Dict& dict, const Value& key);
const Value* look_up(const Dict& dict, std::string_view key);
void put(Arena& arena, std::vector<std::pair<Value, Value>>& entries, const Value& key, const Value& value);

// str(): strings as they are, undefined is "".
Value to_string(Arena& arena, const Value& v);
void append_string(Arena& arena, Str& to, const Value& v);
void append_repr(Arena& arena, Str& to, const Value& v, int depth = 0);
std::string repr_float(double v);

// len(), or a fault.
int64_t length(const Value& v);
// What a for loop sees: items of a list, characters of a string, keys of a dict, nothing of undefined. Uses
// generators up.
std::vector<Value> iterate(Arena& arena, const Value& v);
bool contains(Arena& arena, const Value& container, const Value& item);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  bool pretty = false;
  Str indent;  // one level, when pretty
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
// json.dumps(); the punctuation has the mark of the container it belongs to.
void append_json(Arena& arena, Str& to, const Value& v, const JsonStyle& style, int depth = 0);

// Levels of containers that str(), tojson and comparisons follow.
inline constexpr int kMaxDepth = 100;

}  // namespace nibble::text::jinja
