#include "eval/generate.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/process.h"
#include "eval/text_stream.h"

namespace nibble::eval {
namespace {

constexpr int64_t kForwardTokens = 512;  // most tokens of one forward
constexpr int64_t kCacheBytes = int64_t{1}
                                << 31;  // most bytes of keys and values, unless one sequence needs more
constexpr int64_t kReserve = int64_t{1}
                             << 28;  // bytes a single sequence gets at once, for a conversation to grow into

int64_t size_of(const std::vector<int32_t>& ids) { return static_cast<int64_t>(ids.size()); }

size_t common_prefix(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  const size_t n = std::min(a.size(), b.size());
  return static_cast<size_t>(
      std::mismatch(a.begin(), a.begin() + static_cast<ptrdiff_t>(n), b.begin()).first - a.begin());
}

// Random stream of each prompt: the number of earlier ones that are the same, so that equal prompts get
// different answers and any other prompt the answer it would get alone.
std::vector<uint64_t> streams_of(const std::vector<std::vector<int32_t>>& prompts, uint64_t first) {
  std::map<std::vector<int32_t>, uint64_t> seen;
  std::vector<uint64_t> streams;
  for (const auto& prompt : prompts) streams.push_back(first + seen[prompt]++);
  return streams;
}

}  // namespace

const char* finish_name(Finish finish) {
  return finish == Finish::kStop ? "stop" : finish == Finish::kLength ? "length" : "cancelled";
}

void GenerateOptions::check() const {
  sampling.check();
  auto positive = [](const char* name, int64_t value) {
    if (value < 1) throw UsageError(name, fmt::format("expected a number above 0, got {}", value));
  };
  positive("--max-new-tokens", max_new_tokens);
  positive("--batch-size", batch);
  if (context < 0) throw UsageError("--context", fmt::format("expected a number from 0 up, got {}", context));
}

double Generator::Timing::tokens_per_second() const {
  if (decode_seconds > 0) return static_cast<double>(decoded) / decode_seconds;
  return seconds > 0 ? static_cast<double>(written) / seconds : 0;
}

// A prompt that has a slot of the cache. ids: the prompt and what was written; `fed` of them are in the
// cache.
struct Generator::Sequence {
  size_t index;
  uint64_t stream;
  std::vector<int32_t> ids;
  size_t fed;
  TextStream text;

  int64_t waiting() const { return static_cast<int64_t>(ids.size() - fed); }
};

Generator::Generator(autograd::Context& cx, const models::CausalModel& model,
                     const text::Tokenizer& tokenizer)
    : cx_(cx), model_(model), tokenizer_(tokenizer) {}

// Logits F32 [rows, V] after `ids` were appended to `slots`.
Tensor Generator::forward(const std::vector<int32_t>& slots, const std::vector<std::vector<int32_t>>& ids,
                          const std::vector<int32_t>& rows) {
  const nn::SequenceInput input = nn::cached_input(cx_.allocator(), *cache_, slots, ids);
  const autograd::Variable h = model_.forward(cx_, input, cache_.get());
  nn::commit(*cache_, slots, ids);
  if (rows.empty()) return {};
  const Tensor picked = Tensor::borrow(rows.data(), {size_of(rows)}, kI32, nullptr);
  return model_.logits(cx_, h, picked);
}

std::vector<Generated> Generator::run(const std::vector<std::vector<int32_t>>& prompts,
                                      const GenerateOptions& options, const OnText& on_text) {
  options.check();
  timing_ = {};
  if (prompts.empty()) return {};
  const int64_t made_for = model_.config().max_positions;
  const int64_t context = options.context > 0 ? options.context : made_for;
  require(context <= made_for, "--context", "{} tokens asked for, the model was made for {}", context,
          made_for);

  std::vector<Generated> results(prompts.size());
  int64_t capacity = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const int64_t n = size_of(prompts[i]);
    require(n > 0, "generate", "prompt {} is empty and the tokenizer puts nothing in front of it", i + 1);
    require(n < context, "generate",
            "prompt {} has {} tokens, which leaves no room for an answer in a context of {}", i + 1, n,
            context);
    results[i].prompt_tokens = n;
    capacity = std::max(capacity, std::min(context, n + options.max_new_tokens));
  }

  const int64_t layers = model_.config().layers, width = model_.kv_width();
  const int64_t token_bytes = 2 * layers * width * dtype_bytes(cx_.compute());
  int64_t slots = std::min(options.batch, static_cast<int64_t>(prompts.size()));
  if (slots > 1) slots = std::clamp<int64_t>(kCacheBytes / (token_bytes * capacity), 1, slots);
  const bool reuse = slots == 1 && cache_ != nullptr && cache_->slots == 1 && cache_->capacity >= capacity;
  if (!reuse) {
    if (slots == 1)
      capacity = std::min(context, std::max({capacity, kReserve / token_bytes,
                                             cache_ != nullptr ? 2 * cache_->capacity : 0}));
    cache_.reset();
    held_.clear();
    cache_ = std::make_unique<nn::KvCache>(cx_.allocator(), layers, slots, capacity, width, cx_.compute());
  }

  const autograd::NoGrad no_grad(cx_);
  const std::vector<uint64_t> streams = streams_of(prompts, options.first_stream);
  std::vector<std::unique_ptr<Sequence>> active(static_cast<size_t>(slots));
  size_t next = 0, finished = 0;
  bool cancelled = false;

  auto admit = [&](size_t slot) {
    const std::vector<int32_t>& prompt = prompts[next];
    // At least one token must be fed again: its logits are what the answer begins with.
    const size_t kept = slots == 1 ? std::min(common_prefix(held_, prompt), prompt.size() - 1) : 0;
    cache_->length[slot] = static_cast<int32_t>(kept);
    held_.resize(slots == 1 ? kept : 0);
    active[slot].reset(
        new Sequence{next, streams[next], prompt, kept, TextStream(tokenizer_, prompt, options.stop)});
    ++next;
  };
  auto emit = [&](const Sequence& s, const std::string& text) {
    if (on_text && !text.empty() && !on_text(s.index, text)) cancelled = true;
  };
  auto end = [&](size_t slot, Finish finish) {
    Sequence& s = *active[slot];
    emit(s, s.text.finish());
    Generated& result = results[s.index];
    result.finish = finish;
    result.text = s.text.text();
    if (slots == 1) held_.assign(s.ids.begin(), s.ids.begin() + static_cast<ptrdiff_t>(s.fed));
    active[slot].reset();
    ++finished;
  };
  // Takes the token drawn for a slot.
  auto accept = [&](size_t slot, int32_t id) {
    Sequence& s = *active[slot];
    Generated& result = results[s.index];
    ++timing_.written;
    if (std::find(options.stop_ids.begin(), options.stop_ids.end(), id) != options.stop_ids.end())
      return end(slot, Finish::kStop);
    s.ids.push_back(id);
    result.ids.push_back(id);
    emit(s, s.text.push(id));
    if (s.text.stopped()) return end(slot, Finish::kStop);
    if (size_of(result.ids) >= options.max_new_tokens || size_of(s.ids) >= context)
      end(slot, Finish::kLength);
  };

  const double start = now_seconds();
  while (finished < prompts.size() && !cancelled && !interrupted()) {
    for (size_t slot = 0; slot < active.size() && next < prompts.size(); ++slot)
      if (active[slot] == nullptr) admit(slot);

    // Every waiting sequence gets one token of the budget, prompts in slot order what remains.
    int64_t budget = kForwardTokens;
    for (const auto& s : active) budget -= s != nullptr;
    std::vector<int32_t> used, rows;
    std::vector<std::vector<int32_t>> ids;
    std::vector<size_t> ready;  // slots whose last row predicts a new token
    int64_t total = 0;
    for (size_t slot = 0; slot < active.size(); ++slot) {
      if (active[slot] == nullptr) continue;
      Sequence& s = *active[slot];
      const int64_t more = std::clamp<int64_t>(budget, 0, s.waiting() - 1), n = 1 + more;
      budget -= more;
      used.push_back(static_cast<int32_t>(slot));
      const auto begin = s.ids.begin() + static_cast<ptrdiff_t>(s.fed);
      ids.emplace_back(begin, begin + n);
      s.fed += static_cast<size_t>(n);
      total += n;
      if (s.waiting() == 0) {
        ready.push_back(slot);
        rows.push_back(static_cast<int32_t>(total - 1));
      }
    }
    const double begun = now_seconds();
    const bool only_writes =
        timing_.written > 0 && total == static_cast<int64_t>(used.size()) && ready.size() == used.size();
    const Tensor logits = forward(used, ids, rows);
    for (size_t i = 0; i < ready.size() && !cancelled; ++i) {
      const Sequence& s = *active[ready[i]];
      const int64_t vocab = logits.size(1), known = std::min<int64_t>(vocab, tokenizer_.vocab_size());
      const std::span<const float> row(logits.data<float>() + static_cast<int64_t>(i) * vocab,
                                       static_cast<size_t>(known));
      const auto step = static_cast<uint64_t>(results[s.index].ids.size());
      accept(ready[i], draw_token(row, s.ids, options.sampling, s.stream, step));
    }
    if (only_writes) {
      timing_.decoded += static_cast<int64_t>(used.size());
      timing_.decode_seconds += now_seconds() - begun;
    } else {
      timing_.read += total;
    }
  }
  for (size_t slot = 0; slot < active.size(); ++slot)
    if (active[slot] != nullptr) end(slot, Finish::kCancelled);
  timing_.seconds = now_seconds() - start;
  return results;
}

}  // namespace nibble::eval
