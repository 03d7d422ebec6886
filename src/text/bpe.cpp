#include "text/bpe.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <queue>

#include "base/error.h"
#include "base/text.h"
#include "text/normalize.h"

namespace nibble::text {

// Neighbours in the word; a symbol that was merged away has end == begin.
struct Bpe::Symbol {
  int32_t id;  // -1: not in the vocabulary
  uint32_t begin, end;
  int32_t previous, next;
  bool frozen;
};

// Where unused pieces were put together, to take them apart again.
struct Bpe::Unmerged {
  std::map<std::string_view, size_t> left_length;
};

namespace {

constexpr size_t kShortWord = 40;

bool has_inner_space(std::string_view piece) {
  for (size_t at = piece.find(kSpaceSymbol, 1); at != std::string_view::npos;
       at = piece.find(kSpaceSymbol, at + 1))
    if (!piece.substr(0, at).ends_with(kSpaceSymbol)) return true;
  return false;
}

}  // namespace

Bpe::Bpe(std::shared_ptr<const Vocab> vocab, const std::vector<std::pair<std::string, std::string>>& merges,
         BpeOptions options, const std::string& where)
    : vocab_(std::move(vocab)), options_(std::move(options)) {
  pairs_.reserve(merges.size());
  std::string joined;
  bool inner_space = false;
  for (size_t i = 0; i < merges.size(); ++i) {
    const auto& [left, right] = merges[i];
    const int32_t a = vocab_->find(left), b = vocab_->find(right);
    require(a >= 0 && b >= 0, where, "merge {} joins \"{}\", which is not in the vocabulary", i + 1,
            a < 0 ? left : right);
    joined.assign(left);
    joined += right.starts_with(options_.continuing_prefix)
                  ? std::string_view(right).substr(options_.continuing_prefix.size())
                  : std::string_view(right);
    const int32_t id = vocab_->find(joined);
    require(id >= 0, where, "merge {} gives \"{}\", which is not in the vocabulary", i + 1, joined);
    inner_space = inner_space || has_inner_space(joined);
    bool fresh = false;
    // Of a pair given twice the later rank counts, as in the `tokenizers` package.
    pairs_.insert((static_cast<uint64_t>(a) << 32) | static_cast<uint32_t>(b), {}, fresh) = {
        static_cast<uint32_t>(i), id};
  }
  split_before_space_ = !options_.bytes && !inner_space;
  prepare(where);
}

Bpe::Bpe(std::shared_ptr<const Vocab> vocab, std::vector<uint32_t> ranks, const std::vector<int32_t>& whole,
         const std::vector<int32_t>& unused, BpeOptions options, const std::string& where)
    : vocab_(std::move(vocab)), options_(std::move(options)), ranks_(std::move(ranks)) {
  require(ranks_.size() == static_cast<size_t>(vocab_->size()), where, "{} ranks for {} pieces",
          ranks_.size(), vocab_->size());
  bool inner_space = false;
  for (int32_t id = 0; id < vocab_->size(); ++id)
    if (ranks_[static_cast<size_t>(id)] != kNever)
      inner_space = inner_space || has_inner_space(vocab_->piece(id));
  for (const int32_t id : whole) {
    const std::string_view piece = vocab_->piece(id);
    if (piece.empty() || find_invalid_utf8(piece) != std::string_view::npos) continue;
    whole_pieces_.insert(piece, id);
    inner_space = inner_space || has_inner_space(piece);
  }
  if (!unused.empty()) unused_.assign(ranks_.size(), false);
  for (const int32_t id : unused) unused_[static_cast<size_t>(id)] = true;
  split_before_space_ = !options_.bytes && !inner_space;
  prepare(where);
}

void Bpe::prepare(const std::string& where) {
  for (int b = 0; b < 256; ++b) {
    const char byte = static_cast<char>(b);
    byte_ids_[b] = options_.bytes           ? vocab_->find({&byte, 1})
                   : options_.byte_fallback ? vocab_->find(fmt::format("<0x{:02X}>", b))
                                            : -1;
  }
  for (int b = 0; b < 128; ++b) {
    const char byte = static_cast<char>(b);
    ascii_ids_[b] = vocab_->find({&byte, 1});
  }
  require(options_.unknown < vocab_->size(), where, "the unknown token's id {} is outside the vocabulary",
          options_.unknown);
  // A cut before ▁ would keep runs of unknown characters from fusing over it.
  split_before_space_ = split_before_space_ && vocab_->find(kSpaceSymbol) >= 0;
  const auto count = static_cast<size_t>(vocab_->size());
  outcome_ = std::make_unique<std::atomic<uint8_t>[]>(count);
  for (size_t i = 0; i < count; ++i) outcome_[i].store(kUnknownYet, std::memory_order_relaxed);
}

void Bpe::encode(const Piece& word, std::vector<TokenSpan>& out) const {
  if (!split_before_space_) return encode_word(word, out);
  const std::string_view text = word.text;
  size_t begin = 0, at = text.find(kSpaceSymbol, 1);
  while (at != std::string_view::npos) {
    if (!text.substr(0, at).ends_with(kSpaceSymbol)) {
      encode_word(word.part(begin, at), out);
      begin = at;
    }
    at = text.find(kSpaceSymbol, at + 1);
  }
  encode_word(word.part(begin, text.size()), out);
}

void Bpe::encode_word(const Piece& word, std::vector<TokenSpan>& out) const {
  const std::string_view text = word.text;
  const int32_t known = vocab_->find(text);
  if (known >= 0) {
    const uint8_t outcome = outcome_[static_cast<size_t>(known)].load(std::memory_order_relaxed);
    if (options_.ignore_merges || outcome == kWhole) return append_token(out, known, word, 0, text.size());
  }
  thread_local std::vector<Symbol> symbols;
  start(text, symbols);
  std::unique_ptr<Unmerged> unmerged(unused_.empty() ? nullptr : new Unmerged);
  if (symbols.size() <= kShortWord) {
    merge_short(text, symbols, unmerged.get());
  } else {
    merge_long(text, symbols, unmerged.get());
  }
  if (known >= 0) {
    const bool whole = symbols[0].id == known && symbols[0].end == text.size() && unused_.empty();
    outcome_[static_cast<size_t>(known)].store(whole ? kWhole : kSplits, std::memory_order_relaxed);
  }
  give(word, symbols, unmerged.get(), out);
}

void Bpe::start(std::string_view text, std::vector<Symbol>& symbols) const {
  symbols.clear();
  const auto add = [&](int32_t id, size_t begin, size_t end, bool frozen) {
    const auto n = static_cast<int32_t>(symbols.size());
    symbols.push_back({id, static_cast<uint32_t>(begin), static_cast<uint32_t>(end), n - 1, n + 1, frozen});
  };
  const bool affixes = !options_.continuing_prefix.empty() || !options_.end_of_word_suffix.empty();
  for (size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (options_.bytes) {
      add(byte_ids_[byte], i, i + 1, false);
      ++i;
      continue;
    }
    int32_t id = -1;
    if (const size_t length = whole_pieces_.longest(text.substr(i), id); length > 0) {
      add(id, i, i + length, true);
      i += length;
      continue;
    }
    const size_t length = char_length(text, i);
    if (affixes) {
      std::string spelled(i > 0 ? options_.continuing_prefix : "");
      spelled += text.substr(i, length);
      if (i + length == text.size()) spelled += options_.end_of_word_suffix;
      id = vocab_->find(spelled);
    } else {
      id = length == 1 ? ascii_ids_[byte] : vocab_->find(text.substr(i, length));
    }
    // Control pieces and the like are no spelling of a character.
    if (!ranks_.empty() && id >= 0 && ranks_[static_cast<size_t>(id)] == kNever) id = -1;
    add(id, i, i + length, false);
    i += length;
  }
  symbols.back().next = -1;
}

inline Bpe::Merge Bpe::rank(std::string_view text, const Symbol& a, const Symbol& b) const {
  if (ranks_.empty()) {
    if (a.id < 0 || b.id < 0) return {kNever, -1};
    const Merge* merge = pairs_.find((static_cast<uint64_t>(a.id) << 32) | static_cast<uint32_t>(b.id));
    return merge == nullptr ? Merge{kNever, -1} : *merge;
  }
  if (a.frozen || b.frozen) return {kNever, -1};
  const int32_t id = vocab_->find(text.substr(a.begin, b.end - a.begin));
  return id < 0 ? Merge{kNever, -1} : Merge{ranks_[static_cast<size_t>(id)], id};
}

// Ranks of all neighbours in an array, the best found by looking at all of them.
void Bpe::merge_short(std::string_view text, std::vector<Symbol>& symbols, Unmerged* unmerged) const {
  Merge merges[kShortWord];
  size_t count = symbols.size();
  const auto look = [&](size_t i) {
    merges[i] = rank(text, symbols[i], symbols[i + 1]);
    if (unmerged != nullptr && merges[i].rank != kNever && unused_[static_cast<size_t>(merges[i].id)])
      unmerged->left_length[text.substr(symbols[i].begin, symbols[i + 1].end - symbols[i].begin)] =
          symbols[i].end - symbols[i].begin;
  };
  for (size_t i = 0; i + 1 < count; ++i) look(i);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i)
      if (merges[i].rank < merges[best].rank) best = i;
    if (merges[best].rank == kNever) break;
    symbols[best].id = merges[best].id;
    symbols[best].end = symbols[best + 1].end;
    std::copy(symbols.begin() + static_cast<ptrdiff_t>(best) + 2,
              symbols.begin() + static_cast<ptrdiff_t>(count),
              symbols.begin() + static_cast<ptrdiff_t>(best) + 1);
    std::copy(merges + best + 1, merges + count - 1, merges + best);
    --count;
    if (best > 0) look(best - 1);
    if (best + 1 < count) look(best);
  }
  symbols.resize(count);
  for (size_t i = 0; i < count; ++i) symbols[i].next = i + 1 < count ? static_cast<int32_t>(i) + 1 : -1;
}

void Bpe::merge_long(std::string_view text, std::vector<Symbol>& symbols, Unmerged* unmerged) const {
  struct Candidate {
    uint32_t rank;
    int32_t left, id;
    uint32_t size;  // of the piece: a candidate whose parts have changed since no longer fits it
  };
  const auto later = [](const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
  };
  std::vector<Candidate> storage;
  storage.reserve(symbols.size());
  std::priority_queue<Candidate, std::vector<Candidate>, decltype(later)> queue(later, std::move(storage));
  const auto look = [&](int32_t left) {
    if (left < 0 || symbols[static_cast<size_t>(left)].next < 0) return;
    const Symbol& a = symbols[static_cast<size_t>(left)];
    const Symbol& b = symbols[static_cast<size_t>(a.next)];
    const Merge merge = rank(text, a, b);
    if (merge.rank == kNever) return;
    queue.push({merge.rank, left, merge.id, b.end - a.begin});
    if (unmerged != nullptr && unused_[static_cast<size_t>(merge.id)])
      unmerged->left_length[text.substr(a.begin, b.end - a.begin)] = a.end - a.begin;
  };
  for (size_t i = 0; i + 1 < symbols.size(); ++i) look(static_cast<int32_t>(i));
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Symbol& a = symbols[static_cast<size_t>(top.left)];
    if (a.end == a.begin || a.next < 0) continue;
    Symbol& b = symbols[static_cast<size_t>(a.next)];
    if (b.end - a.begin != top.size) continue;
    a.id = top.id;
    a.end = b.end;
    a.next = b.next;
    b.begin = b.end;
    if (a.next >= 0) symbols[static_cast<size_t>(a.next)].previous = top.left;
    look(a.previous);
    look(top.left);
  }
}

void Bpe::give(const Piece& word, const std::vector<Symbol>& symbols, const Unmerged* unmerged,
               std::vector<TokenSpan>& out) const {
  bool after_unknown = false;
  const auto unknown = [&](size_t begin, size_t end) {
    if (options_.byte_fallback) {
      bool all = true;
      for (size_t i = begin; i < end; ++i)
        all = all && byte_ids_[static_cast<unsigned char>(word.text[i])] >= 0;
      if (all) {
        for (size_t i = begin; i < end; ++i)
          append_token(out, byte_ids_[static_cast<unsigned char>(word.text[i])], word, i, i + 1);
        return;
      }
    }
    if (options_.unknown >= 0) {
      if (after_unknown && options_.fuse_unknown) {
        out.back().end = word.origin(begin, end).end;
      } else {
        append_token(out, options_.unknown, word, begin, end);
      }
      after_unknown = true;
    }
  };
  // Takes an unused piece apart into what it was merged from.
  const auto give_part = [&](const auto& self, int32_t id, size_t begin, size_t end) -> void {
    if (id >= 0 && unmerged != nullptr && unused_[static_cast<size_t>(id)]) {
      const auto at = unmerged->left_length.find(word.text.substr(begin, end - begin));
      if (at != unmerged->left_length.end()) {
        const size_t middle = begin + at->second;
        self(self, vocab_->find(word.text.substr(begin, middle - begin)), begin, middle);
        self(self, vocab_->find(word.text.substr(middle, end - middle)), middle, end);
        return;
      }
    }
    if (id < 0) return unknown(begin, end);
    append_token(out, id, word, begin, end);
    after_unknown = id == options_.unknown;
  };
  for (int32_t i = 0; i >= 0; i = symbols[static_cast<size_t>(i)].next)
    give_part(give_part, symbols[static_cast<size_t>(i)].id, symbols[static_cast<size_t>(i)].begin,
              symbols[static_cast<size_t>(i)].end);
}

}  // namespace nibble::text
