#include <algorithm>

#include "base/error.h"
#include "data/dataset.h"

namespace nibble::data {
namespace {

// Bytes [begin, end) of the rendered text whose tokens are learned.
struct Range {
  size_t begin, end;
};

bool is_assistant(const Example& example, int message) {
  return example.messages[static_cast<size_t>(message)].value("role", "") == "assistant";
}

// Where each message's own bytes begin and end in the rendered text; end 0 for one that the template left
// out.
std::vector<Range> own_ranges(const text::RenderedChat& chat, size_t count) {
  std::vector<Range> own(count, Range{chat.text.size(), 0});
  for (const auto& run : chat.runs) {
    if (run.origin != text::Origin::kMessage || static_cast<size_t>(run.message) >= count) continue;
    Range& range = own[static_cast<size_t>(run.message)];
    range.begin = std::min(range.begin, run.begin);
    range.end = std::max(range.end, run.end);
  }
  return own;
}

// Where the turn of `message` ends: behind the last special token that the template puts after the message's
// own bytes within its turn, else behind the first one that it puts outside all turns (an EOS after the
// loop). 0 when there is none.
size_t end_of_turn(const text::RenderedChat& chat, const std::vector<text::TokenSpan>& tokens,
                   const text::Tokenizer& tokenizer, int message, size_t own_end) {
  size_t end = 0;
  auto run = std::partition_point(chat.runs.begin(), chat.runs.end(),
                                  [&](const auto& r) { return r.end <= own_end; });
  auto token =
      std::partition_point(tokens.begin(), tokens.end(), [&](const auto& t) { return t.begin < own_end; });
  for (; token != tokens.end(); ++token) {
    while (run != chat.runs.end() && run->end <= token->begin) ++run;
    if (run == chat.runs.end() || (run->turn != message && run->turn != -1)) break;
    if (token->end == token->begin || !tokenizer.is_special(token->id)) continue;
    if (run->turn == message) {
      end = token->end;
    } else {
      return end != 0 ? end : token->end;
    }
  }
  return end;
}

// The last token of this id in the template's text of a turn whose message left no bytes; {0, 0}: none.
Range end_of_empty_turn(const text::RenderedChat& chat, const std::vector<text::TokenSpan>& tokens,
                        int message, int32_t end_token) {
  Range end{0, 0};
  auto token = tokens.begin();
  for (const auto& run : chat.runs) {
    while (token != tokens.end() && token->begin < run.begin) ++token;
    for (; token != tokens.end() && token->begin < run.end; ++token)
      if (run.turn == message && token->id == end_token) end = {token->begin, token->end};
  }
  return end;
}

// What is learned of a rendered conversation, in order.
std::vector<Range> learned_ranges(const Example& example, const text::RenderedChat& chat,
                                  const std::vector<text::TokenSpan>& tokens,
                                  const text::Tokenizer& tokenizer, std::optional<int32_t> end_token) {
  const std::vector<Range> own = own_ranges(chat, example.messages.size());
  const auto learned = [&](int m) {
    return example.train_all || example.train_message[static_cast<size_t>(m)];
  };
  std::vector<Range> ranges;
  for (int m = 0; m < static_cast<int>(own.size()); ++m) {
    const Range& range = own[static_cast<size_t>(m)];
    if (!learned(m)) continue;
    if (range.end == 0) {
      // An empty answer: to stop at once is what it teaches.
      if (is_assistant(example, m) && end_token)
        if (const Range end = end_of_empty_turn(chat, tokens, m, *end_token); end.end != 0)
          ranges.push_back(end);
      continue;
    }
    const size_t stop = end_of_turn(chat, tokens, tokenizer, m, range.end);
    require(stop != 0 || !is_assistant(example, m), example.source,
            "the chat template puts no end token after the assistant's turn, so the model would never learn "
            "to stop; put a template with one ({{{{ eos_token }}}} after the answer) as chat_template.jinja "
            "beside "
            "the tokenizer, or give the data as prompt and completion");
    ranges.push_back({range.begin, std::max(stop, range.end)});
  }
  if (example.train_all && !ranges.empty()) return {{0, ranges.back().end}};
  if (!chat.has_generation_blocks) return ranges;

  // The template itself marks what the assistant writes; the end of the turn is learned even where it forgot
  // that.
  std::vector<Range> marked;
  for (const auto& run : chat.runs)
    if (run.generation && run.turn >= 0 && run.turn < static_cast<int>(own.size()) && learned(run.turn))
      marked.push_back({run.begin, run.end});
  if (marked.empty()) return ranges;
  for (int m = 0; m < static_cast<int>(own.size()); ++m) {
    const Range& range = own[static_cast<size_t>(m)];
    if (range.end == 0 || !learned(m)) continue;
    if (const size_t stop = end_of_turn(chat, tokens, tokenizer, m, range.end); stop != 0)
      marked.push_back({range.end, stop});
  }
  std::sort(marked.begin(), marked.end(), [](const Range& x, const Range& y) { return x.begin < y.begin; });
  return marked;
}

// Neighbours of one kind become one text: a tokenizer that puts a space before a text puts it there once.
std::vector<Segment> joined(std::vector<Segment> segments) {
  std::vector<Segment> out;
  for (Segment& s : segments) {
    if (!out.empty() && out.back().train == s.train) {
      out.back().text += s.text;
    } else {
      out.push_back(std::move(s));
    }
  }
  return out;
}

}  // namespace

std::shared_ptr<const text::ChatTemplate> training_template(const text::Tokenizer& tokenizer) {
  constexpr int64_t kDay = 1721952000;  // 2024-07-26 00:00 UTC
  return text::chat_template_of(tokenizer, kDay);
}

Encoder::Encoder(std::shared_ptr<const text::Tokenizer> tokenizer,
                 std::shared_ptr<const text::ChatTemplate> chat_template, bool split_special_tokens,
                 std::optional<int32_t> start_token)
    : tokenizer_(std::move(tokenizer)),
      chat_template_(std::move(chat_template)),
      split_special_(split_special_tokens),
      start_token_(start_token) {
  if (chat_template_) end_of_turn_ = text::end_of_turn(*chat_template_, *tokenizer_);
}

text::RenderedChat Encoder::render(const Example& example) const {
  try {
    return chat_template_->render(example.messages, false);
  } catch (const Error& e) {
    fail(example.source, "its conversation cannot be written with the model's chat template: {}", e.what());
  }
}

EncodedExample Encoder::encode_labelled(const Example& example) const {
  require(tokenizer_->pair.has_value(), example.source,
          "has a label of its whole text, but the tokenizer does not say what stands around such a text; "
          "give one "
          "whose tokenizer.json has a post-processor, as BERT's and RoBERTa's have");
  const text::PairTemplate& around = *tokenizer_->pair;
  EncodedExample out;
  out.source = example.source;
  out.label = example.label;
  const auto append = [&](const std::vector<int32_t>& ids) {
    out.ids.insert(out.ids.end(), ids.begin(), ids.end());
  };
  const auto text = [&](size_t i) {
    const auto ids = tokenizer_->encode(example.segments[i].text,
                                        {.add_special = false, .parse_special = !split_special_});
    append(ids);
    return static_cast<int32_t>(ids.size());
  };
  append(around.before);
  out.first_tokens = text(0);
  if (example.segments.size() > 1) {
    append(around.between);
    if (around.second_type != 0) out.second_begin = static_cast<int32_t>(out.ids.size());
    out.second_tokens = text(1);
  }
  append(around.after);
  out.train.assign(out.ids.size(), 0);
  return out;
}

void Encoder::truncate(EncodedExample& e, int64_t limit) const {
  const auto before = static_cast<int64_t>(tokenizer_->pair->before.size());
  const int64_t first = e.first_tokens, second = e.second_tokens,
                around = static_cast<int64_t>(e.ids.size()) - first - second, room = limit - around;
  require(room >= 0, e.source, "{} tokens stand around its texts, more than max_seq_length {}", around,
          limit);
  if (first + second <= room) return;
  // The shorter keeps what it has up to half the room, the longer takes the rest.
  const int64_t shorter = std::min(std::min(first, second), room / 2), longer = room - shorter;
  const int64_t kept_first = first > second ? longer : shorter, kept_second = room - kept_first;
  const int64_t after = static_cast<int64_t>(tokenizer_->pair->after.size()),
                second_end = static_cast<int64_t>(e.ids.size()) - after;
  e.ids.erase(e.ids.begin() + second_end - (second - kept_second), e.ids.begin() + second_end);
  e.ids.erase(e.ids.begin() + before + kept_first, e.ids.begin() + before + first);
  e.train.assign(e.ids.size(), 0);
  if (e.second_begin > 0) e.second_begin -= static_cast<int32_t>(first - kept_first);
  e.first_tokens = static_cast<int32_t>(kept_first);
  e.second_tokens = static_cast<int32_t>(kept_second);
}

EncodedExample Encoder::encode_pair(const Example& example) const {
  Example pair = example;
  if (!example.messages.is_null()) {
    // The last answer that is learned, after all that was said before it.
    auto last = static_cast<int>(example.messages.size()) - 1;
    const auto learned = [&](int m) {
      return is_assistant(example, m) && (example.train_all || example.train_message[static_cast<size_t>(m)]);
    };
    while (last >= 0 && !learned(last)) --last;
    require(last >= 0, example.source, "has no answer of the assistant that could be learned");
    pair.messages.erase(pair.messages.begin() + last + 1, pair.messages.end());
    pair.train_all = false;
    pair.train_message.assign(pair.messages.size(), false);
    pair.train_message.back() = true;
  }
  const std::vector<Segment> parts =
      joined(pair.messages.is_null() ? pair.segments : plain_conversation(pair));
  size_t target = parts.size();
  while (target > 0 && !parts[target - 1].train) --target;
  require(tokenizer_->eos.has_value(), example.source,
          "the tokenizer has no end token, so the model would never learn to stop; give one with its "
          "special_tokens_map.json");
  EncodedExample out;
  out.source = example.source;
  const bool parse = example.messages.is_null() || !split_special_;
  const auto append = [&](const std::string& text, bool learned) {
    const auto ids = tokenizer_->encode(text, {.add_special = false, .parse_special = parse});
    require(!ids.empty(), example.source,
            "has an empty {}; an encoder–decoder learns to write a response after reading a prompt",
            learned ? "response" : "prompt");
    out.ids.insert(out.ids.end(), ids.begin(), ids.end());
    out.ids.push_back(*tokenizer_->eos);
    out.train.resize(out.ids.size(), learned ? 1 : 0);
  };
  std::string before;
  for (size_t i = 0; i + 1 < target; ++i) before += parts[i].text;
  append(before, false);
  out.source_tokens = static_cast<int32_t>(out.ids.size());
  out.ids.push_back(*start_token_);
  out.train.push_back(0);
  append(target == 0 ? "" : parts[target - 1].text, true);
  return out;
}

void Encoder::cut_pair(EncodedExample& e, int64_t source_limit, int64_t target_limit) {
  const auto cut = [&](int64_t end, int64_t length, int64_t limit) {
    if (limit <= 0 || length <= limit) return int64_t{0};
    const int64_t first = end - 1 - (length - limit), last = end - 1;
    e.ids.erase(e.ids.begin() + first, e.ids.begin() + last);
    e.train.erase(e.train.begin() + first, e.train.begin() + last);
    return length - limit;
  };
  cut(static_cast<int64_t>(e.ids.size()), e.length(), target_limit);
  e.source_tokens -= static_cast<int32_t>(cut(e.source_tokens, e.source_tokens, source_limit));
}

EncodedExample Encoder::encode(const Example& example) const {
  if (example.label) return encode_labelled(example);
  if (start_token_) return encode_pair(example);
  EncodedExample out;
  out.source = example.source;
  if (!example.messages.is_null() && chat_template_) {
    const text::RenderedChat chat = render(example);
    const auto tokens = text::encode_chat(*tokenizer_, chat, split_special_);
    // A token is learned when it holds a byte of a learned range; both are in order.
    const auto ranges = learned_ranges(example, chat, tokens, *tokenizer_, end_of_turn_);
    auto range = ranges.begin();
    for (const text::TokenSpan& t : tokens) {
      while (range != ranges.end() && range->end <= t.begin) ++range;
      out.ids.push_back(t.id);
      out.train.push_back(range != ranges.end() && t.begin < range->end && t.end > range->begin ? 1 : 0);
    }
  } else {
    const std::vector<Segment> segments =
        joined(example.messages.is_null() ? example.segments : plain_conversation(example));
    // A text is what its writer made it, special tokens included; a message is not (see text/chat.h).
    const bool parse = example.messages.is_null() || !split_special_;
    const auto append = [&](int32_t id, bool learned) {
      out.ids.push_back(id);
      out.train.push_back(learned ? 1 : 0);
    };
    const auto opening = tokenizer_->encode("a");
    if (tokenizer_->bos && !opening.empty() && opening.front() == *tokenizer_->bos)
      append(*tokenizer_->bos, false);
    for (const Segment& segment : segments)
      for (const int32_t id :
           tokenizer_->encode(segment.text, {.add_special = false, .parse_special = parse}))
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
    if (role == "user" || role == "assistant")
      segments.push_back({role == "user" ? "### Human: " : "### Assistant: ", example.train_all});
    segments.push_back({content, learned});
  }
  return segments;
}

}  // namespace nibble::data
