// What must hold for any text: nothing is lost, spans name the bytes, long words merge as short ones do,
// threads agree.
#include <fmt/core.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/rng.h"
#include "base/text.h"
#include "tests/text/support.h"
#include "text/bpe.h"
#include "text/loaders.h"

namespace nibble::text {
namespace {

using ::testing::ElementsAre;

// The byte-level golden tokenizer without normalizer, prefix space and added tokens.
std::shared_ptr<const Tokenizer> lossless() {
  Json json = parse_json(read_file(kGoldens + "digits.json"), "digits.json");
  json["normalizer"] = nullptr;
  return parse_tokenizer_json(json.dump(), {}, "lossless");
}

class Dice {
 public:
  explicit Dice(uint64_t seed) : rng_(seed) {}
  uint64_t below(uint64_t n) { return rng_.below(at_++, n); }

 private:
  Rng rng_;
  uint64_t at_ = 0;
};

// Characters of all kinds, in runs.
std::string random_text(Dice& dice, size_t characters) {
  constexpr const char* kParts[] = {"a",          "b",       "th",     "e",
                                    " ",          "  ",      "\n",     "\r\n",
                                    "\t",         "1",       "23",     ".",
                                    "'s",         "'",       "é",      "e\xCC\x81",
                                    "日",         "本",      "🐟",      "\xE2\x80\x8D",
                                    "ع",          "<s>",     "</s>",   "▁",
                                    "Ġ",          "waiting", " heron", "\xC2\xA0",
                                    "ß",          "_",       "(",      "\xEF\xBF\xBD",
                                    "<|im_end|>", "water"};
  std::string text;
  while (text.size() < characters) {
    const std::string part = kParts[dice.below(std::size(kParts))];
    for (uint64_t n = dice.below(8) == 0 ? 1 + dice.below(20) : 1; n > 0; --n) text += part;
  }
  return text;
}

TEST(TokenizerProperties, ByteLevelTextComesBackAndSpansAreItsBytes) {
  const auto tokenizer = lossless();
  Dice dice(3);
  for (int round = 0; round < 300; ++round) {
    const std::string text = random_text(dice, dice.below(200));
    const auto spans = tokenizer->encode_spans(text, kVerbatim);
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text, kVerbatim)), text);
    std::string joined;
    for (const TokenSpan& span : spans) {
      EXPECT_EQ(span.begin, joined.size());
      const std::string bytes = text.substr(span.begin, span.end - span.begin);
      EXPECT_EQ(tokenizer->piece(span.id), alphabet_of_bytes(bytes));
      joined += bytes;
    }
    EXPECT_EQ(joined, text);
  }
}

TEST(TokenizerProperties, EverySmallTokenizerTakesAnyText) {
  for (const char* name :
       {"byte_level.json", "split_patterns.json", "byte_fallback.json", "fused_unknown.json",
        "word_suffix.json", "inner_prefix.json", "unigram.json", "wordpiece.json", "wordlevel.json",
        "sp_unigram.model", "sp_bpe.model", "sp_suffix.model"}) {
    const auto tokenizer = load_tokenizer(kGoldens + name);
    Dice dice(stream_id(name));
    for (int round = 0; round < 100; ++round) {
      std::string text = random_text(dice, dice.below(100));
      if (round % 2 == 1)  // damaged
        for (int k = 0; k < 3 && !text.empty(); ++k) {
          const size_t where = dice.below(text.size());
          text[where] = static_cast<char>(dice.below(256));
        }
      size_t done = 0;
      for (const TokenSpan& span : tokenizer->encode_spans(text)) {
        ASSERT_GE(span.id, 0);
        ASSERT_LT(span.id, tokenizer->vocab_size());
        ASSERT_GE(span.begin, done) << name << ": " << text;
        ASSERT_LE(span.begin, span.end);
        ASSERT_LE(span.end, text.size());
        done = span.end;
      }
      // What is not UTF-8 counts as U+FFFD.
      EXPECT_EQ(tokenizer->encode(text), tokenizer->encode(replace_invalid_utf8(text))) << name;
    }
  }
}

TEST(TokenizerProperties, InvalidUtf8KeepsItsPlace) {
  const auto tokenizer = lossless();
  const std::string text =
      "a\xE2\x82"
      "b\xFF";
  const auto spans = tokenizer->encode_spans(text, kVerbatim);
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(text, kVerbatim)),
            "a\xEF\xBF\xBD"
            "b\xEF\xBF\xBD");
  ASSERT_FALSE(spans.empty());
  EXPECT_EQ(spans.front().begin, 0u);
  EXPECT_EQ(spans.back().end, text.size());
}

TEST(TokenizerProperties, SpecialTokensAreTextWhenTheyShallNotBeParsed) {
  const auto tokenizer = lossless();
  const int32_t end = *tokenizer->id("<|im_end|>");
  EXPECT_TRUE(tokenizer->is_special(end));
  EXPECT_THAT(tokenizer->encode("<|im_end|>"), ElementsAre(end));
  EXPECT_GT(tokenizer->encode("<|im_end|>", kVerbatim).size(), 3u);
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("<|im_end|>", kVerbatim)), "<|im_end|>");
  EXPECT_EQ(tokenizer->decode(std::vector<int32_t>{end}), "");
  EXPECT_EQ(tokenizer->decode(std::vector<int32_t>{end}, false), "<|im_end|>");
  const auto spans = tokenizer->encode_spans("a<|im_end|>b");
  ASSERT_EQ(spans.size(), 3u);
  EXPECT_EQ(spans[1].begin, 1u);
  EXPECT_EQ(spans[1].end, 11u);
}

TEST(TokenizerProperties, SpecialTokensThatTouchALiteralRangeAreText) {
  const auto tokenizer = lossless();
  const int32_t end = *tokenizer->id("<|im_end|>");
  const std::string text = "a<|im_end|>b<|im_end|>c<|im_end|>";
  const auto ends = [&](std::vector<ByteRange> literal) {
    std::vector<size_t> places;
    const auto spans = tokenizer->encode_spans(text, {.add_special = false, .literal = literal});
    std::vector<int32_t> ids;
    for (const TokenSpan& span : spans) {
      ids.push_back(span.id);
      if (span.id == end) places.push_back(span.begin);
    }
    EXPECT_EQ(tokenizer->decode(ids, false), text);
    return places;
  };
  EXPECT_THAT(ends({}), ElementsAre(1, 12, 23));
  EXPECT_THAT(ends({{0, 12}}), ElementsAre(12, 23));
  EXPECT_THAT(ends({{0, 1}, {11, 12}}), ElementsAre(1, 12, 23)) << "neighbours do not touch";
  EXPECT_THAT(ends({{10, 13}}), ElementsAre(23)) << "one byte of each is enough";
  EXPECT_THAT(ends({{0, 2}, {30, 31}}), ElementsAre(12));
  EXPECT_THAT(ends({{0, text.size()}}), ElementsAre());
}

TEST(TokenizerProperties, ByteFallbackSpansHoldOneByteEach) {
  const auto tokenizer = load_tokenizer(kGoldens + "sp_bpe.model");
  const auto spans = tokenizer->encode_spans("\xF0\x9F\xA6\x99", kVerbatim);  // 🦙
  ASSERT_EQ(spans.size(), 5u);                                                // ▁ and four bytes
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(spans[i + 1].begin, i);
    EXPECT_EQ(spans[i + 1].end, i + 1);
  }
  EXPECT_EQ(tokenizer->piece(spans[1].id), "<0xF0>");
  EXPECT_EQ(tokenizer->piece(spans[4].id), "<0x99>");
}

// Byte-pair encoding as its definition says it: look at all pairs, merge the best, start again.
std::vector<std::string> merged_naively(const std::string& word,
                                        const std::map<std::pair<std::string, std::string>, size_t>& ranks) {
  std::vector<std::string> parts;
  for (const char c : word) parts.emplace_back(1, c);
  for (;;) {
    size_t best = SIZE_MAX, where = 0;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto at = ranks.find({parts[i], parts[i + 1]});
      if (at != ranks.end() && at->second < best) {
        best = at->second;
        where = i;
      }
    }
    if (best == SIZE_MAX) return parts;
    parts[where] += parts[where + 1];
    parts.erase(parts.begin() + static_cast<ptrdiff_t>(where) + 1);
  }
}

TEST(TokenizerProperties, ShortAndLongWordsMergeAsTheDefinitionSays) {
  Dice dice(11);
  std::vector<std::pair<std::string, int32_t>> vocab;
  std::vector<std::pair<std::string, std::string>> merges;
  std::map<std::pair<std::string, std::string>, size_t> ranks;
  std::map<std::string, int32_t> ids;
  const auto add = [&](const std::string& piece) {
    if (ids.emplace(piece, static_cast<int32_t>(vocab.size())).second)
      vocab.emplace_back(piece, static_cast<int32_t>(vocab.size()));
  };
  for (const char* c : {"a", "b", "c"}) add(c);
  while (merges.size() < 60) {
    const std::string left = vocab[dice.below(vocab.size())].first,
                      right = vocab[dice.below(vocab.size())].first;
    if (left.size() + right.size() > 9 || !ranks.emplace(std::pair(left, right), merges.size()).second)
      continue;
    merges.emplace_back(left, right);
    add(left + right);
  }
  auto table = std::make_shared<Vocab>();
  table->build(vocab, "test");
  BpeOptions options;
  options.bytes = true;
  const Bpe bpe(table, merges, options, "test");
  for (int round = 0; round < 400; ++round) {
    std::string word;
    for (uint64_t n = 1 + dice.below(120); n > 0; --n) word += static_cast<char>('a' + dice.below(3));
    std::vector<TokenSpan> out;
    bpe.encode(Piece{word}, out);
    std::vector<std::string> parts;
    for (const TokenSpan& span : out) {
      parts.push_back(word.substr(span.begin, span.end - span.begin));
      EXPECT_EQ(ids.at(parts.back()), span.id);
    }
    EXPECT_EQ(parts, merged_naively(word, ranks)) << word;
  }
}

TEST(TokenizerProperties, ThreadsAgree) {
  const auto tokenizer = lossless();
  Dice dice(5);
  const std::string text = random_text(dice, 20000);
  const auto want = lossless()->encode(text);
  std::vector<std::vector<int32_t>> got(4);
  std::vector<std::thread> threads;
  for (auto& ids : got) threads.emplace_back([&] { ids = tokenizer->encode(text); });
  for (std::thread& thread : threads) thread.join();
  for (const auto& ids : got) EXPECT_EQ(ids, want);
}

TEST(TokenizerProperties, AnIdOutsideTheVocabularyIsNamed) {
  const auto tokenizer = lossless();
  for (const int32_t id : {-1, tokenizer->vocab_size(), INT32_MAX}) {
    try {
      tokenizer->piece(id);
      ADD_FAILURE() << id;
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), ::testing::HasSubstr(fmt::format("there is no token with id {}", id)));
    }
    EXPECT_FALSE(tokenizer->is_special(id));
    EXPECT_EQ(tokenizer->decode(std::vector<int32_t>{id}), "");
  }
  EXPECT_EQ(tokenizer->id("no such piece"), std::nullopt);
}

TEST(StreamDecoding, ACharacterComesOutWhole) {
  const auto tokenizer = lossless();
  StreamDecoder stream(*tokenizer);
  std::vector<std::string> steps;
  std::vector<int32_t> ids;
  for (const char c : std::string("\xF0\x9F\xA6\x99!"))
    ids.push_back(*tokenizer->id(alphabet_of_bytes(std::string(1, c))));
  for (const int32_t id : ids) steps.push_back(stream.push(id));
  EXPECT_THAT(steps, ElementsAre("", "", "", "\xF0\x9F\xA6\x99", "!"));
  EXPECT_EQ(stream.finish(), "");
}

TEST(StreamDecoding, WhatCannotBecomeACharacterIsReplaced) {
  const auto tokenizer = lossless();
  const auto byte = [&](char c) { return *tokenizer->id(alphabet_of_bytes(std::string(1, c))); };
  StreamDecoder stream(*tokenizer);
  EXPECT_EQ(stream.push(byte('\xFF')), "\xEF\xBF\xBD");
  EXPECT_EQ(stream.push(byte('\xE2')), "");
  EXPECT_EQ(stream.push(byte('x')), "\xEF\xBF\xBDx");
  EXPECT_EQ(stream.push(byte('\xE2')), "");
  EXPECT_EQ(stream.finish(), "\xEF\xBF\xBD");
  EXPECT_EQ(stream.finish(), "");
}

TEST(StreamDecoding, SpecialTokensInTheMiddleDoNotEatSpaces) {
  const auto tokenizer = load_tokenizer(kGoldens + "sp_bpe.model");
  auto ids = tokenizer->encode("The heron", kVerbatim);
  const auto more = tokenizer->encode("waits", kVerbatim);
  ids.push_back(*tokenizer->eos);
  ids.push_back(*tokenizer->eos);
  ids.insert(ids.end(), more.begin(), more.end());
  StreamDecoder stream(*tokenizer);
  std::string text;
  for (const int32_t id : ids) text += stream.push(id);
  EXPECT_EQ(text + stream.finish(), "The heron waits");
  EXPECT_EQ(tokenizer->decode(ids), "The heron waits");
}

}  // namespace
}  // namespace nibble::text
