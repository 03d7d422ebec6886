#include "text/chat_template.h"

#include <optional>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"
#include "text/jinja_eval.h"
#include "text/jinja_lexer.h"
#include "text/jinja_parser.h"

namespace nibble::text {
namespace {
constexpr std::string_view kWhere = "chat template";
constexpr size_t kMaxSource = size_t{1} << 20;
}  // namespace

struct ChatTemplate::Impl {
  std::string source;
  Json variables;
  jinja::Tree tree;
  std::optional<int64_t> clock;
};

ChatTemplate::ChatTemplate(std::string source, const Json& variables) : impl_(std::make_unique<Impl>()) {
  require(source.size() <= kMaxSource, kWhere, "the template has {} bytes, more than 1 MiB", source.size());
  const size_t bad = find_invalid_utf8(source);
  require(bad == std::string::npos, kWhere, "the template is not valid UTF-8 at byte {}", bad);
  require(variables.is_object() || variables.is_null(), kWhere, "its variables should be an object, got {}",
          variables.type_name());
  impl_->source = std::move(source);
  impl_->variables = variables;
  try {
    jinja::parse(impl_->source, impl_->tree);
  } catch (const jinja::SyntaxFault& f) {
    fail(kWhere, "line {}: {}", f.line, f.message);
  } catch (const jinja::Fault& f) {
    fail(kWhere, "{}", f.message);
  }
}

ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;

RenderedChat ChatTemplate::render(const Json& messages, bool add_generation_prompt) const {
  return render(messages, add_generation_prompt, Json::object());
}

RenderedChat ChatTemplate::render(const Json& messages, bool add_generation_prompt, const Json& extra) const {
  require(extra.is_object() || extra.is_null(), kWhere, "its further variables should be an object, got {}",
          extra.type_name());
  jinja::Arena arena;
  jinja::Evaluator evaluator(impl_->tree, arena, impl_->clock);
  jinja::Str text;
  try {
    // The first of equal names counts. Transformers always defines tools and documents.
    evaluator.define("messages", jinja::messages_from_json(arena, messages));
    evaluator.define("add_generation_prompt", jinja::boolean(add_generation_prompt));
    for (const auto& [name, value] : extra.items())
      evaluator.define(name, jinja::from_json(arena, value, {Origin::kOther, -1}));
    evaluator.define("tools", jinja::none());
    evaluator.define("documents", jinja::none());
    for (const auto& [name, value] : impl_->variables.items())
      evaluator.define(name, jinja::from_json(arena, value, {}));
    text = evaluator.render();
  } catch (const jinja::Fault& f) {
    fail(kWhere, "line {}: {}", evaluator.line(), f.message);
  }
  RenderedChat chat;
  chat.has_generation_blocks = impl_->tree.has_generation;
  chat.runs.reserve(text.runs.size());
  size_t begin = 0;
  for (const jinja::Run& r : text.runs) {
    chat.runs.push_back({begin, r.end, r.origin, r.message, r.turn, r.generation});
    begin = r.end;
  }
  chat.text = std::move(text.bytes);
  return chat;
}

void ChatTemplate::set_clock(int64_t unix_seconds) { impl_->clock = unix_seconds; }

const std::string& ChatTemplate::source() const { return impl_->source; }

}  // namespace nibble::text
