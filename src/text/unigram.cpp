#include "text/unigram.h"

#include <fmt/core.h>

#include "base/error.h"
#include "base/text.h"

namespace nibble::text {

constexpr double kUnknownPenalty = 10.0;

Unigram::Unigram(std::shared_ptr<const Vocab> vocab, std::vector<double> scores,
                 std::vector<UnigramKind> kinds, double lowest, double highest, UnigramOptions options,
                 const std::string& where)
    : vocab_(std::move(vocab)),
      scores_(std::move(scores)),
      kinds_(std::move(kinds)),
      lowest_(lowest),
      highest_(highest),
      options_(options) {
  const auto size = static_cast<size_t>(vocab_->size());
  require(scores_.size() == size && kinds_.size() == size, where, "{} scores for {} pieces", scores_.size(),
          size);
  for (int32_t id = 0; id < vocab_->size(); ++id) {
    const std::string_view piece = vocab_->piece(id);
    if (kinds_[static_cast<size_t>(id)] == UnigramKind::kAbsent || piece.empty()) continue;
    // Positions of the search are character borders.
    if (find_invalid_utf8(piece) == std::string_view::npos) trie_.insert(piece, id);
  }
  for (int b = 0; b < 256; ++b)
    byte_ids_[b] = options_.byte_fallback ? vocab_->find(fmt::format("<0x{:02X}>", b)) : -1;
}

template <class Sum>
void Unigram::search(const Piece& word, std::vector<TokenSpan>& out) const {
  struct Best {
    Sum score;
    int32_t id;
    int64_t begin;  // of the piece that ends here; -1: none does yet
  };
  const std::string_view text = word.text;
  thread_local std::vector<Best> best;
  best.assign(text.size() + 1, {0, -1, -1});
  // The library keeps the lowest score as a float and adds the penalty in that precision.
  const Sum unknown_score = static_cast<Sum>(static_cast<Sum>(lowest_) - static_cast<Sum>(kUnknownPenalty));
  for (size_t at = 0; at < text.size();) {
    const size_t one = char_length(text, at);
    const Sum so_far = best[at].score;
    bool single = false;
    const auto offer = [&](size_t length, int32_t id, double candidate) {
      Best& target = best[at + length];
      if (target.begin < 0 || static_cast<Sum>(candidate) > target.score)
        target = {static_cast<Sum>(candidate), id, static_cast<int64_t>(at)};
    };
    trie_.prefixes(text.substr(at), [&](size_t length, int32_t id) {
      const double score = kinds_[static_cast<size_t>(id)] == UnigramKind::kUserDefined
                               ? static_cast<double>(length) * highest_ - 0.1
                               : scores_[static_cast<size_t>(id)];
      offer(length, id, score + static_cast<double>(so_far));
      single = single || length == one;
    });
    if (!single) offer(one, -1, static_cast<double>(static_cast<Sum>(unknown_score + so_far)));
    at += one;
  }
  thread_local std::vector<size_t> ends;
  ends.clear();
  for (size_t end = text.size(); end > 0; end = static_cast<size_t>(best[end].begin)) ends.push_back(end);
  bool after_unknown = false;
  for (size_t i = ends.size(); i-- > 0;) {
    const size_t end = ends[i], begin = static_cast<size_t>(best[end].begin);
    const int32_t id = best[end].id;
    if (id >= 0) {
      append_token(out, id, word, begin, end);
      after_unknown = false;
      continue;
    }
    bool bytes = options_.byte_fallback;
    for (size_t k = begin; k < end; ++k) bytes = bytes && byte_ids_[static_cast<unsigned char>(text[k])] >= 0;
    if (bytes) {
      for (size_t k = begin; k < end; ++k)
        append_token(out, byte_ids_[static_cast<unsigned char>(text[k])], word, k, k + 1);
      after_unknown = false;
    } else if (options_.unknown >= 0) {
      if (after_unknown) {
        out.back().end = word.origin(begin, end).end;
      } else {
        append_token(out, options_.unknown, word, begin, end);
      }
      after_unknown = true;
    }
  }
}

void Unigram::encode(const Piece& word, std::vector<TokenSpan>& out) const {
  if (options_.single_precision) {
    search<float>(word, out);
  } else {
    search<double>(word, out);
  }
}

}  // namespace nibble::text
