#include "eval/generate.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/error.h"
#include "base/parallel.h"
#include "base/process.h"
#include "eval/text_stream.h"

namespace nibble::eval {
namespace {

constexpr int64_t kForwardTokens = 512;  // most tokens of one forward
constexpr int64_t kSourceTokens = 2048;  // most tokens of its sources, unless one has more
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

// Layers know that text is written while it lives.
class Writing {
 public:
  Writing(autograd::Context& cx, backend::GroupedWeights& grouped)
      : cx_(cx), before_(std::exchange(cx.generation, &grouped)) {}
  ~Writing() { cx_.generation = before_; }
  Writing(const Writing&) = delete;
  Writing& operator=(const Writing&) = delete;

 private:
  autograd::Context& cx_;
  backend::GroupedWeights* before_;
};

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

Generator::Generator(autograd::Context& cx, const models::Model& model, const text::Tokenizer& tokenizer)
    : cx_(cx), model_(model), tokenizer_(tokenizer) {}

// One call of run(): prompts wait for a slot of the cache, are read and continued there, and give it back.
class Generator::Run {
 public:
  Run(Generator& owner, const std::vector<std::vector<int32_t>>& prompts, const GenerateOptions& options,
      int64_t context, const OnText& on_text)
      : owner_(owner),
        prompts_(prompts),
        options_(options),
        context_(context),
        on_text_(on_text),
        streams_(streams_of(prompts, options.first_stream)),
        results_(prompts.size()),
        active_(static_cast<size_t>(owner.cache_->slots)) {
    for (size_t i = 0; i < prompts.size(); ++i) results_[i].prompt_tokens = size_of(prompts[i]);
  }

  std::vector<Generated> go() {
    while (finished_ < prompts_.size() && !cancelled_ && !interrupted()) {
      for (size_t slot = 0; slot < active_.size() && next_ < prompts_.size(); ++slot)
        if (active_[slot] == nullptr) admit(slot);
      one_forward();
    }
    for (size_t slot = 0; slot < active_.size(); ++slot)
      if (active_[slot] != nullptr) end(slot, Finish::kCancelled);
    return std::move(results_);
  }

 private:
  // A prompt that has a slot. ids: the prompt and what was written; `fed` of them are in the cache.
  struct Sequence {
    size_t index;
    uint64_t stream;
    std::vector<int32_t> ids;
    size_t fed;
    TextStream text;
    std::vector<int32_t> source = {};  // what the encoder has yet to read

    int64_t waiting() const { return static_cast<int64_t>(ids.size() - fed); }
  };
  // What goes through the model together; `ready` are the slots whose last row predicts a new token.
  struct Batch {
    std::vector<int32_t> slots, rows;
    std::vector<std::vector<int32_t>> ids, sources;
    std::vector<size_t> ready;
    int64_t tokens = 0, source_tokens = 0;
  };

  bool alone() const { return active_.size() == 1; }

  void admit(size_t slot) {
    const std::vector<int32_t>& prompt = prompts_[next_];
    std::vector<int32_t>& held = owner_.held_;
    if (const auto start = owner_.model_.config().decoder_start()) {
      held.clear();
      owner_.cache_->length[slot] = 0;
      active_[slot].reset(new Sequence{
          next_, streams_[next_], {*start}, 0, TextStream(owner_.tokenizer_, {}, options_.stop), prompt});
      ++next_;
      return;
    }
    // At least one token must be fed again: its logits are what the answer begins with.
    const size_t kept = alone() ? std::min(common_prefix(held, prompt), prompt.size() - 1) : 0;
    owner_.cache_->length[slot] = static_cast<int32_t>(kept);
    held.resize(kept);
    active_[slot].reset(new Sequence{next_, streams_[next_], prompt, kept,
                                     TextStream(owner_.tokenizer_, prompt, options_.stop)});
    ++next_;
  }

  void emit(const Sequence& s, const std::string& text) {
    if (on_text_ && !text.empty() && !on_text_(s.index, text)) cancelled_ = true;
  }

  void end(size_t slot, Finish finish) {
    Sequence& s = *active_[slot];
    emit(s, s.text.finish());
    Generated& result = results_[s.index];
    result.finish = finish;
    result.text = s.text.text();
    if (alone()) owner_.held_.assign(s.ids.begin(), s.ids.begin() + static_cast<ptrdiff_t>(s.fed));
    active_[slot].reset();
    ++finished_;
  }

  // Takes the token drawn for a slot.
  void accept(size_t slot, int32_t id) {
    Sequence& s = *active_[slot];
    Generated& result = results_[s.index];
    ++owner_.timing_.written;
    if (std::find(options_.stop_ids.begin(), options_.stop_ids.end(), id) != options_.stop_ids.end())
      return end(slot, Finish::kStop);
    s.ids.push_back(id);
    result.ids.push_back(id);
    emit(s, s.text.push(id));
    if (s.text.stopped()) return end(slot, Finish::kStop);
    if (size_of(result.ids) >= options_.max_new_tokens || size_of(s.ids) >= context_)
      end(slot, Finish::kLength);
  }

  // Every waiting sequence gets one token of the budget, prompts in slot order what remains.
  Batch next_batch() {
    int64_t budget = kForwardTokens;
    for (const auto& s : active_) budget -= s != nullptr;
    Batch batch;
    for (size_t slot = 0; slot < active_.size(); ++slot) {
      if (active_[slot] == nullptr) continue;
      Sequence& s = *active_[slot];
      const int64_t source = size_of(s.source);
      if (source > 0 && batch.source_tokens > 0 && batch.source_tokens + source > kSourceTokens) continue;
      batch.sources.push_back(std::exchange(s.source, {}));
      batch.source_tokens += source;
      const int64_t more = std::clamp<int64_t>(budget, 0, s.waiting() - 1), n = 1 + more;
      budget -= more;
      batch.slots.push_back(static_cast<int32_t>(slot));
      const auto begin = s.ids.begin() + static_cast<ptrdiff_t>(s.fed);
      batch.ids.emplace_back(begin, begin + n);
      s.fed += static_cast<size_t>(n);
      batch.tokens += n;
      if (s.waiting() == 0) {
        batch.ready.push_back(slot);
        batch.rows.push_back(static_cast<int32_t>(batch.tokens - 1));
      }
    }
    return batch;
  }

  void one_forward() {
    const Batch batch = next_batch();
    Timing& timing = owner_.timing_;
    const double begun = now_seconds();
    const auto sequences = static_cast<int64_t>(batch.slots.size());
    const bool only_writes = timing.written > 0 && batch.source_tokens == 0 && batch.tokens == sequences &&
                             batch.ready.size() == batch.slots.size();
    const Tensor logits = owner_.forward(batch.slots, batch.ids, batch.sources, batch.rows);
    std::vector<int32_t> drawn(batch.ready.size());
    parallel_for(static_cast<int64_t>(drawn.size()), 1, [&](int64_t begin, int64_t) {
      const auto i = static_cast<size_t>(begin);
      const Sequence& s = *active_[batch.ready[i]];
      const int64_t vocab = logits.size(1), known = std::min<int64_t>(vocab, owner_.tokenizer_.vocab_size());
      const std::span<const float> row(logits.data<float>() + begin * vocab, static_cast<size_t>(known));
      const auto step = static_cast<uint64_t>(results_[s.index].ids.size());
      drawn[i] = draw_token(row, s.ids, options_.sampling, s.stream, step);
    });
    for (size_t i = 0; i < drawn.size() && !cancelled_; ++i) accept(batch.ready[i], drawn[i]);
    if (only_writes) {
      timing.decoded += sequences;
      timing.decode_seconds += now_seconds() - begun;
    } else {
      timing.read += batch.tokens + batch.source_tokens;
    }
  }

  Generator& owner_;
  const std::vector<std::vector<int32_t>>& prompts_;
  const GenerateOptions& options_;
  const int64_t context_;
  const OnText& on_text_;
  std::vector<uint64_t> streams_;
  std::vector<Generated> results_;
  std::vector<std::unique_ptr<Sequence>> active_;  // by slot
  size_t next_ = 0, finished_ = 0;
  bool cancelled_ = false;
};

// Logits F32 [rows, V] after `ids` were appended to `slots` and the encoder has read their new sources.
Tensor Generator::forward(const std::vector<int32_t>& slots, const std::vector<std::vector<int32_t>>& ids,
                          const std::vector<std::vector<int32_t>>& sources,
                          const std::vector<int32_t>& rows) {
  const nn::SequenceInput input = nn::cached_input(cx_.allocator(), *cache_, slots, ids, sources);
  const autograd::Variable h = model_.forward(cx_, input, cache_.get());
  nn::commit(*cache_, slots, ids);
  if (rows.empty()) return {};
  const Tensor picked = Tensor::borrow(rows.data(), {size_of(rows)}, kI32, nullptr);
  return model_.logits(cx_, h, picked);
}

// A cache with room for `capacity` tokens, and as many of a source as said, of each of at most `wanted`
// sequences: the last one, or a new one.
void Generator::provide_cache(int64_t wanted, int64_t capacity, int64_t context, int64_t source_capacity) {
  const int64_t layers = model_.config().layers, width = model_.kv_width();
  const int64_t token_bytes = 2 * layers * width * dtype_bytes(cx_.compute());
  const int64_t slots =
      wanted > 1 ? std::clamp<int64_t>(kCacheBytes / (token_bytes * (capacity + source_capacity)), 1, wanted)
                 : wanted;
  if (slots == 1 && cache_ != nullptr && cache_->slots == 1 && cache_->capacity >= capacity &&
      cache_->source_capacity >= source_capacity)
    return;
  if (slots == 1 && source_capacity == 0)
    capacity = std::min(
        context, std::max({capacity, kReserve / token_bytes, cache_ != nullptr ? 2 * cache_->capacity : 0}));
  cache_.reset();
  held_.clear();
  cache_ = std::make_unique<nn::KvCache>(cx_.allocator(), layers, slots, capacity, width, cx_.compute(),
                                         source_capacity);
}

std::vector<Generated> Generator::run(const std::vector<std::vector<int32_t>>& asked,
                                      const GenerateOptions& options, const OnText& on_text) {
  options.check();
  timing_ = {};
  if (asked.empty()) return {};
  const bool reads_source = model_.config().reads_source();
  std::vector<std::vector<int32_t>> prompts = asked;
  if (reads_source && tokenizer_.eos)
    for (auto& prompt : prompts)
      if (!prompt.empty() && prompt.back() != *tokenizer_.eos) prompt.push_back(*tokenizer_.eos);
  const int64_t made_for = model_.config().max_positions;
  const int64_t context = options.context > 0 ? options.context : made_for;
  require(context <= made_for, "--context", "{} tokens asked for, the model was made for {}", context,
          made_for);
  int64_t capacity = 0, source_capacity = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const int64_t n = size_of(prompts[i]);
    require(n > 0, "generate", "prompt {} is empty and the tokenizer puts nothing in front of it", i + 1);
    require(n < context, "generate",
            "prompt {} has {} tokens, which leaves no room for an answer in a context of {}", i + 1, n,
            context);
    if (reads_source) source_capacity = std::max(source_capacity, n);
    capacity = std::max(capacity, std::min(context, (reads_source ? 1 : n) + options.max_new_tokens));
  }
  provide_cache(std::min(options.batch, static_cast<int64_t>(prompts.size())), capacity, context,
                source_capacity);

  const autograd::NoGrad no_grad(cx_);
  const Writing writing(cx_, grouped_);
  const double start = now_seconds();
  std::vector<Generated> results = Run(*this, prompts, options, context, on_text).go();
  timing_.seconds = now_seconds() - start;
  return results;
}

}  // namespace nibble::eval
