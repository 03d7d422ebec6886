#include "text/jinja_eval.h"

#include <algorithm>

namespace nibble::text::jinja {
namespace {

// Levels of the tree being evaluated at once, macros included: keeps the C++ stack small whatever the
// template is.
constexpr int kMaxNesting = 1000;
constexpr int kMaxMacroDepth = 100;

int32_t message_of(const Value& v) { return v.kind == Kind::kDict ? v.dict->message : -1; }

}  // namespace

struct Evaluator::Guard {
  Guard(Evaluator& evaluator, int line) : e(evaluator) {
    e.line_ = line;
    e.arena_.budget.charge(1);
    if (++e.depth_ > kMaxNesting) fault("the template's calls and blocks are nested too deeply");
  }
  ~Guard() { --e.depth_; }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;
  Evaluator& e;
};

void Evaluator::define(const std::string& name, const Value& value) {
  // A name that the template never mentions needs no place.
  if (const auto it = tree_.ids.find(name); it != tree_.ids.end())
    root_.variables.emplace_back(it->second, value);
}

Str Evaluator::render() {
  Str out;
  out_ = &out;
  run(tree_.body);
  return out;
}

void Evaluator::write(const Str& s) {
  arena_.budget.charge_text(s);
  if (turn_ < 0 && loop_depth_ > 0) {  // a loop over positions: the first message written is the turn
    for (const Run& r : s.runs) {
      if (r.message < 0) continue;
      turn_ = r.message;
      break;
    }
  }
  size_t begin = 0;
  for (Run r : s.runs) {
    const size_t end = r.end;
    if (r.message >= 0) {
      r.turn = r.message;
    } else if (r.turn < 0) {
      r.turn = turn_;
    }
    r.generation = r.generation || generation_;
    append(*out_, s.view().substr(begin, end - begin), r);
    begin = end;
  }
}

Evaluator::Flow Evaluator::run(const Nodes& body) {
  for (const Node* n : body)
    if (const Flow flow = run(*n); flow != Flow::kNext) return flow;
  return Flow::kNext;
}

Evaluator::Flow Evaluator::run(const Node& n) {
  const Guard guard(*this, n.line);
  switch (n.type) {
    case NodeType::kData:
      write(*n.constant.string);
      return Flow::kNext;
    case NodeType::kOutput:
      write(*to_string(arena_, eval(*n.first)).string);
      return Flow::kNext;
    case NodeType::kIf:
      for (size_t i = 0; i < n.items.size(); ++i)
        if (truth(eval(*n.items[i]))) return run(n.branches[i]);
      return n.branches.size() > n.items.size() ? run(n.branches.back()) : Flow::kNext;
    case NodeType::kFor:
      return run_for(n);
    case NodeType::kSet: {
      const Value v = eval(*n.second);
      if (turn_ < 0 && loop_depth_ > 0 && message_of(v) >= 0) turn_ = message_of(v);
      assign(*n.first, v);
      return Flow::kNext;
    }
    case NodeType::kSetBlock: {
      Str text;
      if (const Flow flow = captured(n.body, text); flow != Flow::kNext) return flow;
      assign(*n.first, filtered(n.second, arena_.string(std::move(text))));
      return Flow::kNext;
    }
    case NodeType::kFilterBlock: {
      Str text;
      if (const Flow flow = captured(n.body, text); flow != Flow::kNext) return flow;
      write(*to_string(arena_, filtered(n.first, arena_.string(std::move(text)))).string);
      return Flow::kNext;
    }
    case NodeType::kMacro: {
      Function* f = arena_.function();
      f->type = Function::Type::kMacro;
      f->name = n.name;
      f->macro = &n;
      f->scope = scope_;
      Value v;
      v.kind = Kind::kFunction;
      v.function = f;
      set_variable(n.id, v);
      return Flow::kNext;
    }
    case NodeType::kCallBlock: {
      Function* f = arena_.function();
      f->type = Function::Type::kMacro;
      f->name = n.name;
      f->macro = &n;
      f->scope = scope_;
      Value caller;
      caller.kind = Kind::kFunction;
      caller.function = f;
      const Node& call_node = *n.first;
      const Value callee = eval(*call_node.first);
      Arguments args = arguments(call_node);
      args.named.emplace_back("caller", caller);
      write(*to_string(arena_, call(callee, "call", args)).string);
      return Flow::kNext;
    }
    case NodeType::kWith: {
      Scope* inner = new_scope(scope_);
      Scope* outer = scope_;
      std::vector<Value> values;
      for (size_t i = 1; i < n.items.size(); i += 2) values.push_back(eval(*n.items[i]));
      scope_ = inner;
      for (size_t i = 0; i < values.size(); ++i) assign(*n.items[2 * i], values[i]);
      const Flow flow = run(n.body);
      scope_ = outer;
      return flow;
    }
    case NodeType::kGeneration: {
      const bool before = std::exchange(generation_, true);
      const Flow flow = run_inner(n.body);
      generation_ = before;
      return flow;
    }
    case NodeType::kBreak:
      return Flow::kBreak;
    case NodeType::kContinue:
      return Flow::kContinue;
    default:
      fault("this is no statement");
  }
}

Evaluator::Flow Evaluator::run_inner(const Nodes& body) {
  Scope* outer = std::exchange(scope_, new_scope(scope_));
  const Flow flow = run(body);
  scope_ = outer;
  return flow;
}

Evaluator::Flow Evaluator::captured(const Nodes& body, Str& out) {
  Str* before = std::exchange(out_, &out);
  const Flow flow = run_inner(body);
  out_ = before;
  return flow;
}

Value Evaluator::filtered(const Node* filters, const Value& input) {
  return filters == nullptr ? input : eval_filter(*filters, &input);
}

Evaluator::Flow Evaluator::run_for(const Node& n) {
  std::vector<Value> items = iterate(arena_, eval(*n.second));
  Scope* outer = scope_;
  if (n.third != nullptr) {
    std::vector<Value> kept;
    for (const Value& item : items) {
      scope_ = new_scope(outer);
      assign(*n.first, item);
      if (truth(eval(*n.third))) kept.push_back(item);
    }
    scope_ = outer;
    items = std::move(kept);
  }
  if (items.empty()) return n.otherwise.empty() ? Flow::kNext : run_inner(n.otherwise);

  // The loop keeps the items: closures and values outlive the iteration, the list must too.
  const Value list = arena_.list(Kind::kList, std::move(items));
  LoopState* state = arena_.loop();
  state->items = &list.list->items;
  Value loop;
  loop.kind = Kind::kLoop;
  loop.loop = state;
  const int loop_id = tree_.ids.contains("loop") ? tree_.ids.at("loop") : -1;
  const int32_t outer_turn = turn_;
  ++loop_depth_;
  Flow flow = Flow::kNext;
  for (size_t i = 0; i < state->items->size() && flow != Flow::kBreak; ++i) {
    const Value& item = (*state->items)[i];
    state->index = i;
    scope_ = new_scope(outer);
    turn_ = message_of(item) >= 0 ? message_of(item) : outer_turn;
    if (loop_id >= 0) set_variable(loop_id, loop);
    assign(*n.first, item);
    flow = run(n.body);
  }
  --loop_depth_;
  turn_ = outer_turn;
  scope_ = outer;
  return Flow::kNext;
}

Value* Evaluator::variable(int id) {
  for (Scope* s = scope_; s != nullptr; s = s->parent)
    for (auto& [key, value] : s->variables)
      if (key == id) return &value;
  return nullptr;
}

void Evaluator::set_variable(int id, const Value& value) {
  for (auto& [key, old] : scope_->variables) {
    if (key != id) continue;
    old = value;
    return;
  }
  scope_->variables.emplace_back(id, value);
}

void Evaluator::assign(const Node& target, const Value& value) {
  switch (target.type) {
    case NodeType::kName:
      set_variable(target.id, value);
      return;
    case NodeType::kNamespaceField: {
      const Value* space = variable(target.id);
      if (space == nullptr || space->kind != Kind::kNamespace)
        fault("cannot set {}.{}: {} is no namespace", tree_.names[static_cast<size_t>(target.id)],
              target.name, tree_.names[static_cast<size_t>(target.id)]);
      if (target.name.starts_with('_')) fault("a namespace cannot have the field '{}'", target.name);
      for (auto& [key, old] : space->names->entries) {
        if (key != target.name) continue;
        old = value;
        return;
      }
      space->names->entries.emplace_back(target.name, value);
      return;
    }
    default: {
      const std::vector<Value> values = iterate(arena_, value);
      if (values.size() != target.items.size())
        fault("cannot unpack {} values into {} names", values.size(), target.items.size());
      for (size_t i = 0; i < values.size(); ++i) assign(*target.items[i], values[i]);
    }
  }
}

Value Evaluator::call_macro(const Function& f, Arguments& args) {
  const Node& n = *f.macro;
  if (++macro_depth_ > kMaxMacroDepth)
    fault("macros call each other more than {} levels deep", kMaxMacroDepth);
  Scope* outer = std::exchange(scope_, new_scope(f.scope));
  const int32_t outer_turn = turn_;
  const int outer_loops = std::exchange(loop_depth_, 0);

  const size_t count = n.parameters.size(), required = count - n.defaults.size();
  for (size_t i = 0; i < count; ++i) {
    const std::string& name = tree_.names[static_cast<size_t>(n.parameters[i])];
    const Value* given = args.take(i, name);
    Value v = undefined(&name);
    if (given != nullptr) {
      v = *given;
    } else if (i >= required) {
      v = eval(*n.defaults[i - required]);
    }
    if (turn_ < 0 && message_of(v) >= 0) turn_ = message_of(v);
    set_variable(n.parameters[i], v);
  }
  // What is left over goes to varargs, kwargs and caller where the macro mentions them.
  const auto catch_all = [&](const char* name) { return tree_.ids.contains(name) ? tree_.ids.at(name) : -1; };
  const Value* caller = args.take(SIZE_MAX, "caller");
  if (const int id = catch_all("caller"); id >= 0 && caller != nullptr) set_variable(id, *caller);
  if (const int id = catch_all("varargs"); id >= 0) {
    std::vector<Value> rest;
    for (size_t i = count; i < args.positional.size(); ++i) rest.push_back(*args.take(i, ""));
    set_variable(id, arena_.list(Kind::kTuple, std::move(rest)));
  }
  if (const int id = catch_all("kwargs"); id >= 0) {
    std::vector<std::pair<Value, Value>> rest;
    for (const auto& [key, value] : std::vector(args.named)) {
      const bool parameter = std::any_of(n.parameters.begin(), n.parameters.end(), [&, &name = key](int p) {
        return tree_.names[static_cast<size_t>(p)] == name;
      });
      if (!parameter && key != "caller") rest.emplace_back(arena_.string(key), *args.take(SIZE_MAX, key));
    }
    set_variable(id, arena_.dict(std::move(rest)));
  }
  args.done(f.name);

  Str text;
  Str* before = std::exchange(out_, &text);
  run(n.body);
  out_ = before;
  scope_ = outer;
  turn_ = outer_turn;
  loop_depth_ = outer_loops;
  --macro_depth_;
  return arena_.string(std::move(text));
}

// The guard is used by both halves of the evaluator; expressions enter through here.
Value Evaluator::eval(const Node& n) {
  const Guard guard(*this, n.line);
  switch (n.type) {
    case NodeType::kConst:
      return n.constant;
    case NodeType::kName:
      return eval_name(n);
    case NodeType::kList:
    case NodeType::kTuple: {
      std::vector<Value> items;
      items.reserve(n.items.size());
      for (const Node* item : n.items) items.push_back(eval(*item));
      return arena_.list(n.type == NodeType::kList ? Kind::kList : Kind::kTuple, std::move(items));
    }
    case NodeType::kDict:
      return eval_dict(n);
    case NodeType::kConditional:
      if (truth(eval(*n.first))) return eval(*n.second);
      return n.third != nullptr ? eval(*n.third) : undefined();
    case NodeType::kOr: {
      const Value v = eval(*n.first);
      return truth(v) ? v : eval(*n.second);
    }
    case NodeType::kAnd: {
      const Value v = eval(*n.first);
      return truth(v) ? eval(*n.second) : v;
    }
    case NodeType::kNot:
      return boolean(!truth(eval(*n.first)));
    case NodeType::kCompare:
      return eval_compare(n);
    case NodeType::kBinary: {
      const Value a = eval(*n.first);
      const Value b = eval(*n.second);
      line_ = n.line;
      return eval_binary(n.operators[0], a, b);
    }
    case NodeType::kConcat:
      return eval_concat(n);
    case NodeType::kNegative:
    case NodeType::kPositive:
      return eval_sign(n);
    case NodeType::kAttribute: {
      const Value of = eval(*n.first);
      line_ = n.line;
      return attribute_of(of, n.name);
    }
    case NodeType::kItem:
      return eval_item(n);
    case NodeType::kCall:
      return eval_call(n);
    case NodeType::kFilter:
      return eval_filter(n, nullptr);
    case NodeType::kTest: {
      const Value v = eval(*n.first);
      Arguments args = arguments(n);
      line_ = n.line;
      return boolean(apply_test(*this, n.name, v, args));
    }
    default:
      fault("this is no expression");
  }
}

}  // namespace nibble::text::jinja
