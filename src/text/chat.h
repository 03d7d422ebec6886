// Conversations as ids: the template that came with a tokenizer, and the two together.
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace nibble::text {

// The template, with the tokenizer's special tokens as variables; null when it has none. `clock`: what
// strftime_now() tells (ChatTemplate::set_clock). Errors: a template that cannot be parsed.
std::shared_ptr<const ChatTemplate> chat_template_of(const Tokenizer& tokenizer,
                                                     std::optional<int64_t> clock = std::nullopt);

// Ids of a rendered conversation. Only the template's own text makes special tokens: "<|im_end|>" written
// inside a message stays text, so that nobody who writes a message can end a turn or speak in another's name.
// (Transformers tokenizes the rendered text as a whole and does let messages make them; `split_special` false
// does as it does.)
std::vector<TokenSpan> encode_chat(const Tokenizer& tokenizer, const RenderedChat& chat,
                                   bool split_special = true);

// The token that ends an assistant's turn by the template: the first special token after the assistant's own
// text. nullopt when the template puts none there or cannot render a plain conversation.
std::optional<int32_t> end_of_turn(const ChatTemplate& chat, const Tokenizer& tokenizer);

}  // namespace nibble::text
