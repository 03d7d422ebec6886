#include <algorithm>

#include "base/error.h"
#include "data/dataset.h"

namespace nibble::data {
namespace {

// Bytes [begin, end) of the rendered text whose tokens are learned.
struct Range {
  size_t begin, end;
};

// What is learned of a rendered conversation. The end token of a turn is the first special token behind the
// message's last own byte; it must come before the next message's.
std::vector<Range> learned_ranges(const Example& example, const text::RenderedChat& chat,
                                  const std::vector<text::TokenSpan>& tokens,
                                  const text::Tokenizer& tokenizer) {
  std::vector<Range> ranges;
  const auto count = static_cast<int>(example.messages.size());
  // The special token that ends message m's turn, or nullptr.
  const auto end_token = [&](int m, size_t from) -> const text::TokenSpan* {
    size_t limit = chat.text.size();
    for (const auto& run : chat.runs)
      if (run.origin == text::Origin::kMessage && run.message != m && run.begin >= from)
        limit = std::min(limit, run.begin);
    for (const text::TokenSpan& t : tokens)
      if (t.begin >= from && t.end <= limit && t.end > t.begin && tokenizer.is_special(t.id)) return &t;
    return nullptr;
  };
  size_t last_end = 0;
  for (int m = 0; m < count; ++m) {
    size_t begin = chat.text.size(), end = 0;
    for (const auto& run : chat.runs)
      if (run.origin == text::Origin::kMessage && run.message == m && run.end > run.begin) {
        begin = std::min(begin, run.begin);
        end = std::max(end, run.end);
      }
    if (end == 0) continue;  // the template left this message out, or it is empty
    const bool learned = example.train_all || example.train_message[static_cast<size_t>(m)];
    if (!learned) continue;
    const text::TokenSpan* stop = end_token(m, end);
    const bool assistant = example.messages[static_cast<size_t>(m)].value("role", "") == "assistant";
    require(stop != nullptr || !assistant, example.source,
            "the chat template puts no end token after the assistant's turn, so the model would never learn "
            "to stop; use another "
            "template or data with prompt and completion");
    if (stop != nullptr) end = stop->end;
    last_end = std::max(last_end, end);
    ranges.push_back({begin, end});
  }
  if (chat.has_generation_blocks && !example.train_all) {
    // The template itself says what the assistant writes.
    std::vector<Range> marked;
    for (const auto& run : chat.runs)
      if (run.generation && run.turn >= 0 && run.turn < count &&
          example.train_message[static_cast<size_t>(run.turn)])
        marked.push_back({run.begin, run.end});
    if (!marked.empty()) return marked;
  }
  if (example.train_all && last_end > 0) return {{0, last_end}};
  return ranges;
}

}  // namespace

Encoder::Encoder(std::shared_ptr<const text::Tokenizer> tokenizer,
                 std::shared_ptr<const text::ChatTemplate> chat_template)
    : tokenizer_(std::move(tokenizer)), chat_template_(std::move(chat_template)) {}

EncodedExample Encoder::encode(const Example& example) const {
  EncodedExample out;
  out.source = example.source;
  if (!example.messages.is_null() && chat_template_) {
    const text::RenderedChat chat = chat_template_->render(example.messages, false);
    const auto tokens = tokenizer_->encode_spans(chat.text, {.add_special = false});
    const auto ranges = learned_ranges(example, chat, tokens, *tokenizer_);
    for (const text::TokenSpan& t : tokens) {
      const bool learned = std::any_of(ranges.begin(), ranges.end(),
                                       [&](const Range& r) { return t.begin < r.end && t.end > r.begin; });
      out.ids.push_back(t.id);
      out.train.push_back(learned ? 1 : 0);
    }
  } else {
    const std::vector<Segment> segments =
        example.messages.is_null() ? example.segments : plain_conversation(example);
    const auto append = [&](int32_t id, bool learned) {
      out.ids.push_back(id);
      out.train.push_back(learned ? 1 : 0);
    };
    const auto opening = tokenizer_->encode("a");
    if (tokenizer_->bos && !opening.empty() && opening.front() == *tokenizer_->bos)
      append(*tokenizer_->bos, false);
    for (const Segment& segment : segments)
      for (const int32_t id : tokenizer_->encode(segment.text, {.add_special = false}))
        append(id, segment.train);
    if (example.end_of_text && !segments.empty()) {
      require(tokenizer_->eos.has_value(), example.source,
              "the tokenizer has no end token, so the model would never learn to stop; give one with its "
              "special_tokens_map.json");
      append(*tokenizer_->eos, segments.back().train);
    }
  }
  if (!out.train.empty()) out.train[0] = 0;
  return out;
}

std::vector<Segment> Encoder::plain_conversation(const Example& example) {
  std::vector<Segment> segments;
  for (size_t m = 0; m < example.messages.size(); ++m) {
    const Json& message = example.messages[m];
    const std::string role = message.value("role", ""),
                      content = json_get<std::string>(message, "content", "", example.source);
    const bool learned = example.train_all || example.train_message[m];
    const std::string lead = m == 0 ? "" : "\n";
    if (role == "assistant") {
      segments.push_back({lead + "### Assistant: ", example.train_all});
    } else {
      segments.push_back({lead + (role == "user" ? "### Human: " : ""), example.train_all});
    }
    segments.push_back({content, learned});
  }
  return segments;
}

}  // namespace nibble::data
