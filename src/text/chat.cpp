#include "text/chat.h"

#include <algorithm>

#include "base/error.h"
#include "base/json.h"
#include "base/log.h"

namespace nibble::text {
namespace {

bool spells_special(const Tokenizer& tokenizer, std::string_view text) {
  const auto tokens = tokenizer.encode_spans(text, {.add_special = false});
  return std::any_of(tokens.begin(), tokens.end(),
                     [&](const TokenSpan& t) { return tokenizer.is_special(t.id); });
}

// A role may be a part of a special token ('<|' ~ role ~ '|>') but not bring one of its own.
bool is_literal(const Tokenizer& tokenizer, const RenderedChat& chat, const ProvenanceRun& run) {
  switch (run.origin) {
    case Origin::kTemplate:
      return false;
    case Origin::kRole:
      return spells_special(tokenizer, std::string_view(chat.text).substr(run.begin, run.end - run.begin));
    case Origin::kMessage:
    case Origin::kOther:
      return true;
  }
  return true;
}

}  // namespace

std::shared_ptr<const ChatTemplate> chat_template_of(const Tokenizer& tokenizer,
                                                     std::optional<int64_t> clock) {
  if (tokenizer.chat_template.empty()) return nullptr;
  Json variables = Json::object();
  const std::pair<const char*, std::optional<int32_t>> specials[] = {{"bos_token", tokenizer.bos},
                                                                     {"eos_token", tokenizer.eos},
                                                                     {"unk_token", tokenizer.unk},
                                                                     {"pad_token", tokenizer.pad}};
  for (const auto& [name, id] : specials)
    if (id) variables[name] = tokenizer.piece(*id);
  auto chat = std::make_shared<ChatTemplate>(tokenizer.chat_template, variables);
  if (clock) chat->set_clock(*clock);
  return chat;
}

std::vector<TokenSpan> encode_chat(const Tokenizer& tokenizer, const RenderedChat& chat, bool split_special) {
  std::vector<ByteRange> literal;
  if (split_special)
    for (const ProvenanceRun& run : chat.runs) {
      if (run.begin == run.end || !is_literal(tokenizer, chat, run)) continue;
      if (!literal.empty() && literal.back().end == run.begin)
        literal.back().end = run.end;
      else
        literal.push_back({run.begin, run.end});
    }
  return tokenizer.encode_spans(chat.text, {.add_special = false, .literal = literal});
}

std::optional<int32_t> end_of_turn(const ChatTemplate& chat, const Tokenizer& tokenizer) {
  const Json messages = {{{"role", "user"}, {"content", "a"}}, {{"role", "assistant"}, {"content", "b"}}};
  try {
    const RenderedChat rendered = chat.render(messages, false);
    size_t end = std::string::npos;
    for (const ProvenanceRun& run : rendered.runs)
      if (run.origin == Origin::kMessage && run.message == 1) end = run.end;
    if (end == std::string::npos) return std::nullopt;
    for (const int32_t id : tokenizer.encode(rendered.text.substr(end), {.add_special = false}))
      if (tokenizer.is_special(id)) return id;
  } catch (const Error& e) {
    log_debug("no end of turn from the chat template: {}", e.what());
  }
  return std::nullopt;
}

}  // namespace nibble::text
