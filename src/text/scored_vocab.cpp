// SentencePiece vocabularies: BPE by score or unigram, with control, user-defined, unused and byte pieces.
#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/text.h"
#include "text/bpe.h"
#include "text/loaders.h"
#include "text/unigram.h"

namespace nibble::text {
namespace {

using Type = ScoredVocab::Type;

// Scores into ranks: the highest score is rank 0, equal scores share one.
std::vector<uint32_t> ranks_of(const ScoredVocab& vocab) {
  const auto mergeable = [&](size_t i) {
    return vocab.types[i] == Type::kNormal || vocab.types[i] == Type::kUserDefined ||
           vocab.types[i] == Type::kUnused;
  };
  std::vector<float> scores;
  for (size_t i = 0; i < vocab.scores.size(); ++i)
    if (mergeable(i)) scores.push_back(vocab.scores[i]);
  std::sort(scores.begin(), scores.end(), std::greater<>());
  scores.erase(std::unique(scores.begin(), scores.end()), scores.end());
  std::vector<uint32_t> ranks(vocab.scores.size(), Bpe::kNever);
  for (size_t i = 0; i < ranks.size(); ++i)
    if (mergeable(i))
      ranks[i] = static_cast<uint32_t>(
          std::lower_bound(scores.begin(), scores.end(), vocab.scores[i], std::greater<>()) - scores.begin());
  return ranks;
}

}  // namespace

void build_scored(PipelineParts& parts, ScoredVocab vocab, const std::string& where) {
  const size_t count = vocab.pieces.size();
  require(count > 0, where, "the vocabulary is empty");
  require(vocab.scores.size() == count && vocab.types.size() == count, where,
          "{} pieces but {} scores and {} types", count, vocab.scores.size(), vocab.types.size());
  require(count < static_cast<size_t>(Vocab::kMaxId), where, "the vocabulary has {} pieces", count);
  int32_t unknown = -1;
  std::vector<int32_t> user_defined, unused;
  // What the model looks up. The empty piece keeps the size right when the last ids are control pieces.
  std::vector<std::pair<std::string, int32_t>> matchable = {{"", static_cast<int32_t>(count) - 1}};
  for (size_t i = 0; i < count; ++i) {
    const auto id = static_cast<int32_t>(i);
    const std::string& piece = vocab.pieces[i];
    require(std::isfinite(vocab.scores[i]), where, "the score of piece {} (\"{}\") is not finite", i,
            replace_invalid_utf8(piece));
    parts.spelling.emplace_back(piece, id);
    switch (vocab.types[i]) {
      case Type::kNormal:
        break;
      case Type::kUnknown:
        if (unknown < 0) unknown = id;
        continue;
      case Type::kControl:
        parts.special.push_back(id);
        continue;
      case Type::kUserDefined:
        user_defined.push_back(id);
        if (!piece.empty() && find_invalid_utf8(piece) == std::string_view::npos)
          vocab.rules.verbatim.insert(piece, id);
        break;
      case Type::kUnused:
        unused.push_back(id);
        break;
      case Type::kByte:
        require(fallback_byte(piece) >= 0, where,
                "the byte piece {} is spelled \"{}\", expected <0x00> … <0xFF>", i,
                replace_invalid_utf8(piece));
        matchable.emplace_back(piece, id);
        continue;
      default:
        fail(where, "piece {} has unknown type {}", i, static_cast<int>(vocab.types[i]));
    }
    matchable.emplace_back(piece, id);
  }
  auto lookup = std::make_shared<Vocab>();
  lookup->build(matchable, where);
  if (vocab.unigram) {
    std::vector<double> scores(vocab.scores.begin(), vocab.scores.end());
    std::vector<UnigramKind> kinds(count, UnigramKind::kAbsent);
    float lowest = std::numeric_limits<float>::max(), highest = std::numeric_limits<float>::min();
    for (size_t i = 0; i < count; ++i) {
      if (vocab.types[i] == Type::kUserDefined) kinds[i] = UnigramKind::kUserDefined;
      if (vocab.types[i] != Type::kNormal) continue;
      kinds[i] = UnigramKind::kNormal;
      lowest = std::min(lowest, vocab.scores[i]);
      highest = std::max(highest, vocab.scores[i]);
    }
    UnigramOptions options;
    options.unknown = unknown;
    options.byte_fallback = vocab.byte_fallback;
    options.single_precision = true;
    parts.model = std::make_unique<Unigram>(lookup, std::move(scores), std::move(kinds), lowest, highest,
                                            options, where);
  } else {
    BpeOptions options;
    options.unknown = unknown;
    options.byte_fallback = vocab.byte_fallback;
    options.fuse_unknown = true;
    parts.model = std::make_unique<Bpe>(lookup, ranks_of(vocab), user_defined, unused, options, where);
  }
  parts.sentencepiece_decode = true;
  parts.strips_leading_space = vocab.rules.add_dummy_prefix || vocab.rules.remove_extra_whitespaces;
  parts.strips_all_leading_space = vocab.rules.remove_extra_whitespaces;
  if (unknown >= 0) parts.unk = unknown;
  parts.normalizer = make_normalizer(std::move(vocab.rules));
}

}  // namespace nibble::text
