#include "eval/choice.h"

#include <algorithm>
#include <cmath>

#include "backend/kernels/elementwise.h"
#include "base/error.h"
#include "base/process.h"

namespace nibble::eval {
namespace {

constexpr int64_t kPrefixTokens = 512;  // of one forward over the shared beginning
constexpr int64_t kChoiceCacheBytes = int64_t{1}
                                      << 30;  // most bytes of keys and values, unless one question needs more
constexpr int64_t kMostSlots = 64;

using Ids = std::vector<int32_t>;

struct Prompt {
  Ids ids;
  int64_t shots = 0;
  bool cut = false;
};

// How letters are written after "Answer:": tokens that all of them begin with, and the one that tells them
// apart.
struct Letters {
  Ids lead, ids;
};

Letters letters_of(const text::Tokenizer& tokenizer, size_t count, bool alone) {
  constexpr text::EncodeOptions kPlain{.add_special = false, .parse_special = false};
  constexpr const char* kAnswer = "Answer:";
  const auto refuse = [&](char letter) {
    fail("choices",
         "this tokenizer ({}) does not write the answer {} in one token of its own, so answers cannot be "
         "compared by their letters",
         tokenizer.description, letter);
  };
  Letters out;
  const Ids before = tokenizer.encode(kAnswer, kPlain);
  for (size_t i = 0; i < count; ++i) {
    const char letter = static_cast<char>('A' + i);
    Ids ids = tokenizer.encode(alone ? std::string(1, letter) : std::string(kAnswer) + " " + letter, kPlain);
    if (alone) {
      if (ids.empty()) refuse(letter);
      ids.erase(ids.begin() + 1, ids.end());
    } else {
      if (ids.size() <= before.size() || !std::equal(before.begin(), before.end(), ids.begin()))
        refuse(letter);
      ids.erase(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(before.size()));
    }
    Ids lead = ids;
    const int32_t own = lead.back();
    lead.pop_back();
    if (i == 0) out.lead = lead;
    if (lead != out.lead || std::find(out.ids.begin(), out.ids.end(), own) != out.ids.end()) refuse(letter);
    out.ids.push_back(own);
  }
  return out;
}

class Runner {
 public:
  Runner(autograd::Context& cx, const models::Model& model, const text::Tokenizer& tokenizer,
         const ChoiceOptions& options)
      : cx_(cx), model_(model), tokenizer_(tokenizer), options_(options) {
    require(!model.config().reads_source(), "choices",
            "{} is an encoder–decoder: its prompt is read by the encoder, and the letters are compared at "
            "the end of a "
            "prompt; nibble eval match compares its answers",
            model.config().family);
    const int64_t made_for = model.config().max_positions;
    if (options_.context == 0) options_.context = made_for;
    if (options_.context < 16 || options_.context > made_for)
      throw UsageError("--context",
                       fmt::format("expected 16 to {} tokens (what the model was made for), got {}", made_for,
                                   options_.context));
    require(!options_.reference_loss || tokenizer.eos.has_value(), "mmlu",
            "the tokenizer has no end token, which the reference's loss counts");
  }

  std::vector<ChoiceAnswer> run(const ChoiceSubject& subject, const std::function<void(int64_t)>& progress) {
    require(!subject.questions.empty(), "choices", "the subject {} has no question", subject.name);
    std::vector<Prompt> prompts;
    for (const ChoiceQuestion& q : subject.questions) {
      require(q.choices.size() >= 2 && q.choices.size() <= 26, q.source, "has {} choices; expected 2 to 26",
              q.choices.size());
      require(q.answer >= 0 && q.answer < static_cast<int64_t>(q.choices.size()), q.source,
              "names choice {} of {} as the answer", q.answer + 1, q.choices.size());
      prompts.push_back(encode(subject, q));
    }
    std::vector<ChoiceAnswer> answers(prompts.size());
    // Prompts with the same number of shots begin alike.
    for (int64_t shots = static_cast<int64_t>(subject.shots.size()); shots >= 0; --shots) {
      std::vector<size_t> members;
      for (size_t i = 0; i < prompts.size(); ++i)
        if (prompts[i].shots == shots) members.push_back(i);
      if (!members.empty()) run_group(subject, prompts, members, answers, progress);
    }
    return answers;
  }

 private:
  const Letters& letters(size_t count) {
    if (letters_.empty()) letters_.resize(27);
    if (letters_[count].ids.empty()) letters_[count] = letters_of(tokenizer_, count, options_.reference_loss);
    return letters_[count];
  }

  Prompt encode(const ChoiceSubject& subject, const ChoiceQuestion& q) {
    const Letters& l = letters(q.choices.size());
    // The letter itself is fed only when the end token after it counts.
    const int64_t limit = options_.context - (options_.reference_loss ? 1 : 0);
    Prompt p;
    for (p.shots = static_cast<int64_t>(subject.shots.size());; --p.shots) {
      std::string text = q.prompt;
      if (text.empty()) {
        text = choice_header(subject.name);
        for (int64_t s = 0; s < p.shots; ++s)
          text += choice_block(subject.shots[static_cast<size_t>(s)], true);
        text += choice_block(q, false);
      }
      p.ids = tokenizer_.encode(text, {.add_special = !options_.reference_loss, .parse_special = false});
      if (options_.reference_loss && tokenizer_.bos) p.ids.insert(p.ids.begin(), *tokenizer_.bos);
      p.ids.insert(p.ids.end(), l.lead.begin(), l.lead.end());
      if (static_cast<int64_t>(p.ids.size()) <= limit) return p;
      if (p.shots == 0) break;
    }
    const bool bos = tokenizer_.bos && p.ids[0] == *tokenizer_.bos;
    const auto first = p.ids.begin() + (bos ? 1 : 0);
    p.ids.erase(first, first + (static_cast<int64_t>(p.ids.size()) - limit));
    p.cut = true;
    return p;
  }

  void forward(const std::vector<int32_t>& slots, const std::vector<Ids>& ids, const Ids& rows,
               Tensor* logits) {
    const nn::SequenceInput input = nn::cached_input(cx_.allocator(), *cache_, slots, ids);
    const autograd::Variable h = model_.forward(cx_, input, cache_.get());
    nn::commit(*cache_, slots, ids);
    if (logits == nullptr) return;
    *logits = model_.logits(cx_, h,
                            Tensor::borrow(rows.data(), {static_cast<int64_t>(rows.size())}, kI32, nullptr));
  }

  // Reads the shared beginning into slot 0 and gives every other slot a copy.
  void read_prefix(const Ids& first, int64_t prefix) {
    for (int64_t at = 0; at < prefix; at += kPrefixTokens) {
      const int64_t end = std::min(prefix, at + kPrefixTokens);
      forward({0}, {Ids(first.begin() + at, first.begin() + end)}, {}, nullptr);
    }
    if (prefix == 0) return;
    for (size_t layer = 0; layer < cache_->k.size(); ++layer)
      for (int64_t slot = 1; slot < cache_->slots; ++slot)
        for (Tensor* rows : {&cache_->k[layer], &cache_->v[layer]}) {
          Tensor to = rows->rows(slot * cache_->capacity, slot * cache_->capacity + prefix);
          backend::accumulate(cx_.stream(), rows->rows(0, prefix), to, false);
        }
  }

  void run_group(const ChoiceSubject& subject, const std::vector<Prompt>& prompts,
                 const std::vector<size_t>& members, std::vector<ChoiceAnswer>& answers,
                 const std::function<void(int64_t)>& progress) {
    const Ids& first = prompts[members[0]].ids;
    auto prefix = static_cast<int64_t>(first.size()) - 1;
    int64_t longest = 0;
    for (const size_t m : members) {
      const Ids& ids = prompts[m].ids;
      const int64_t n = std::min(prefix, static_cast<int64_t>(ids.size()) - 1);
      prefix = std::mismatch(first.begin(), first.begin() + n, ids.begin()).first - first.begin();
      longest = std::max(longest, static_cast<int64_t>(ids.size()));
    }
    if (members.size() == 1) prefix = 0;  // nothing to share
    const int64_t capacity = longest + (options_.reference_loss ? 1 : 0);
    const int64_t token_bytes = 2 * model_.config().layers * model_.kv_width() * dtype_bytes(cx_.compute());
    const int64_t wanted = std::min<int64_t>(kMostSlots, static_cast<int64_t>(members.size()));
    const int64_t slots = std::clamp<int64_t>(kChoiceCacheBytes / (token_bytes * capacity), 1, wanted);
    cache_ = std::make_unique<nn::KvCache>(cx_.allocator(), model_.config().layers, slots, capacity,
                                           model_.kv_width(), cx_.compute());
    read_prefix(first, prefix);

    for (size_t begin = 0, end = 0; begin < members.size(); begin = end) {
      if (interrupted()) throw Interrupted("choices", "stopped before the last question");
      std::vector<int32_t> used, rows;
      std::vector<Ids> ids;
      int64_t tokens = 0;
      for (end = begin; end < members.size() && end - begin < static_cast<size_t>(slots); ++end) {
        const Ids& prompt = prompts[members[end]].ids;
        Ids rest(prompt.begin() + prefix, prompt.end());
        if (options_.reference_loss) rest.push_back(right_letter(subject.questions[members[end]]));
        if (end > begin && tokens + static_cast<int64_t>(rest.size()) > options_.tokens_per_batch) break;
        tokens += static_cast<int64_t>(rest.size());
        if (options_.reference_loss) rows.push_back(static_cast<int32_t>(tokens - 2));
        rows.push_back(static_cast<int32_t>(tokens - 1));
        const auto slot = static_cast<int32_t>(end - begin);
        cache_->length[static_cast<size_t>(slot)] = static_cast<int32_t>(prefix);
        used.push_back(slot);
        ids.push_back(std::move(rest));
      }
      Tensor logits;
      forward(used, ids, rows, &logits);
      const int64_t vocab = logits.size(1), step = options_.reference_loss ? 2 : 1;
      for (size_t i = begin; i < end; ++i) {
        const float* row = logits.data<float>() + static_cast<int64_t>(i - begin) * step * vocab;
        const size_t m = members[i];
        answers[m] = read_answer(subject.questions[m], row, vocab);
        answers[m].shots = prompts[m].shots;
        answers[m].cut = prompts[m].cut;
        if (options_.reference_loss) answers[m].end_nll = nll(row + vocab, vocab, *tokenizer_.eos);
      }
      if (progress) progress(static_cast<int64_t>(end - begin));
    }
  }

  int32_t right_letter(const ChoiceQuestion& q) {
    return letters(q.choices.size()).ids[static_cast<size_t>(q.answer)];
  }

  static double nll(const float* row, int64_t vocab, int32_t id) {
    const double largest = *std::max_element(row, row + vocab);
    double sum = 0;
    for (int64_t v = 0; v < vocab; ++v) sum += std::exp(row[v] - largest);
    return largest + std::log(sum) - row[id];
  }

  ChoiceAnswer read_answer(const ChoiceQuestion& q, const float* row, int64_t vocab) {
    ChoiceAnswer a;
    for (const int32_t id : letters(q.choices.size()).ids) {
      require(std::isfinite(row[id]), q.source,
              "the logit of an answer is {}; are weights and adapter intact?", row[id]);
      a.logits.push_back(row[id]);
    }
    a.chosen = std::max_element(a.logits.begin(), a.logits.end()) - a.logits.begin();
    a.nll = nll(row, vocab, right_letter(q));
    return a;
  }

  autograd::Context& cx_;
  const models::Model& model_;
  const text::Tokenizer& tokenizer_;
  ChoiceOptions options_;
  std::unique_ptr<nn::KvCache> cache_;
  std::vector<Letters> letters_;  // by number of choices
};

}  // namespace

std::string choice_header(const std::string& subject) {
  std::string about;
  if (!subject.empty()) about = " about  " + subject;
  std::replace(about.begin(), about.end(), '_', ' ');
  return "The following are multiple choice questions (with answers)" + about + ".\n\n";
}

std::string choice_block(const ChoiceQuestion& question, bool with_answer) {
  std::string text = question.question;
  for (size_t i = 0; i < question.choices.size(); ++i)
    text += fmt::format("\n{}. {}", static_cast<char>('A' + i), question.choices[i]);
  text += "\nAnswer:";
  if (with_answer) text += fmt::format(" {}\n\n", static_cast<char>('A' + question.answer));
  return text;
}

std::vector<std::vector<ChoiceAnswer>> answer_choices(autograd::Context& cx, const models::Model& model,
                                                      const text::Tokenizer& tokenizer,
                                                      const std::vector<ChoiceSubject>& subjects,
                                                      const ChoiceOptions& options) {
  const autograd::NoGrad no_grad(cx);
  Runner runner(cx, model, tokenizer, options);
  int64_t total = 0, done = 0;
  for (const ChoiceSubject& s : subjects) total += static_cast<int64_t>(s.questions.size());
  std::vector<std::vector<ChoiceAnswer>> out;
  for (const ChoiceSubject& subject : subjects)
    out.push_back(runner.run(subject, [&](int64_t more) {
      done += more;
      if (options.progress) options.progress(done, total);
    }));
  return out;
}

void ChoiceScore::add(const ChoiceScore& other) {
  questions += other.questions;
  right += other.right;
  fewer_shots += other.fewer_shots;
  shots_removed += other.shots_removed;
  cut += other.cut;
  nll += other.nll;
}

ChoiceScore score_choices(const ChoiceSubject& subject, const std::vector<ChoiceAnswer>& answers,
                          const ChoiceOptions& options) {
  ChoiceScore score;
  for (size_t i = 0; i < answers.size(); ++i) {
    const ChoiceAnswer& a = answers[i];
    const int64_t lost = static_cast<int64_t>(subject.shots.size()) - a.shots;
    score.add({.questions = 1,
               .right = a.chosen == subject.questions[i].answer,
               .fewer_shots = lost > 0,
               .shots_removed = lost,
               .cut = a.cut,
               .nll = options.reference_loss ? (a.nll + a.end_nll) / 2 : a.nll});
  }
  return score;
}

}  // namespace nibble::eval
