// A tokenizer written as tokenizer.json gives the ids of the file it came from.
#include "text/export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/gguf.h"
#include "base/json.h"
#include "base/rng.h"
#include "tests/text/support.h"
#include "text/export_vocab.h"
#include "text/loaders.h"

namespace nibble::text {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

class Directory {
 public:
  Directory() {
    std::string pattern = (fs::temp_directory_path() / "nibble_export_XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~Directory() { fs::remove_all(path_); }
  const std::string& path() const { return path_; }
  std::vector<std::string> put(const std::vector<NamedFile>& files) const {
    std::vector<std::string> names;
    for (const NamedFile& f : files) {
      write_file_atomic(path_ + "/" + f.name, f.bytes);
      names.push_back(f.name);
    }
    return names;
  }

 private:
  std::string path_;
};

// Texts of the conformance vectors, runs of white space of any length, and random strings over awkward
// characters.
std::vector<std::string> texts() {
  std::vector<std::string> out;
  const std::string input = read_file(kShared + "conformance/llama.cpp/ggml-vocab-gpt-2.gguf.inp");
  constexpr std::string_view kBetween = "\n__ggml_vocab_test__\n";
  for (size_t at = 0; at < input.size();) {
    const size_t end = input.find(kBetween, at);
    out.push_back(input.substr(at, end - at));
    at = end == std::string::npos ? input.size() : end + kBetween.size();
  }
  const std::string book = read_file(kShared + "conformance/ggml-prompts/test-cases.txt");
  out.push_back(book);
  for (size_t n = 1; n <= 40; ++n) out.push_back("a" + std::string(n, ' ') + "b");
  const std::vector<std::string> kinds = {" ", " ",   "\n",   "\t",     "a",  "the", "1", "2",
                                          "é", "日",  "🙂", "'",      "'s", "\r",  "!", ".",
                                          "A", "ing", "ß",    "\u00a0", "▁",  "_",   "x", "\u200d"};
  const Rng rng(7, 1);
  uint64_t draw = 0;
  for (int i = 0; i < 400; ++i) {
    std::string text;
    for (uint64_t n = 1 + rng.below(draw++, 24); n > 0; --n) {
      const std::string& kind = kinds[rng.below(draw++, kinds.size())];
      for (uint64_t r = rng.below(draw, 5) == 0 ? 1 + rng.below(draw + 1, 9) : 1; r > 0; --r) text += kind;
      draw += 2;
    }
    out.push_back(text);
  }
  return out;
}

class Exported : public ::testing::TestWithParam<const char*> {};

TEST_P(Exported, IdsAreTheSame) {
  const std::string path = kShared + GetParam();
  if (!fs::exists(path)) GTEST_SKIP() << path << " is absent";
  const auto original = load_tokenizer(path);
  const Directory directory;
  const TokenizerExport out = export_tokenizer(path, "");
  ASSERT_EQ(out.missing, "");
  EXPECT_THAT(directory.put(out.files),
              ::testing::ElementsAre("tokenizer.json", "tokenizer_config.json", "generation_config.json"));
  const auto copy = load_tokenizer(directory.path());
  EXPECT_EQ(copy->vocab_size(), original->vocab_size());
  EXPECT_EQ(copy->bos, original->bos);
  EXPECT_EQ(copy->eos, original->eos);
  EXPECT_EQ(copy->pad, original->pad);
  EXPECT_EQ(copy->chat_template, original->chat_template);
  for (const std::string& text : texts()) {
    const auto ids = original->encode(text);
    EXPECT_EQ(copy->encode(text), ids) << text;
    EXPECT_EQ(copy->encode(text, {.add_special = false}), original->encode(text, {.add_special = false}))
        << text;
    EXPECT_EQ(copy->decode(ids), original->decode(ids)) << text;
  }
  for (int32_t id = 0; id < original->vocab_size(); ++id) {
    if (!original->is_special(id) || copy->is_special(id)) continue;
    // Left are the unknown token and padding of the same type: no text gives them.
    EXPECT_THAT(original->encode(original->piece(id), {.add_special = false}), Not(::testing::Contains(id)));
    EXPECT_THAT(copy->encode(original->piece(id), {.add_special = false}), Not(::testing::Contains(id)));
  }
}

INSTANTIATE_TEST_SUITE_P(Files, Exported,
                         ::testing::Values("conformance/llama.cpp/ggml-vocab-gpt-2.gguf",
                                           "conformance/llama.cpp/ggml-vocab-mpt.gguf",
                                           "conformance/llama.cpp/ggml-vocab-gpt-neox.gguf",
                                           "conformance/llama.cpp/ggml-vocab-llama-spm.gguf",
                                           "conformance/llama.cpp/ggml-vocab-phi-3.gguf",
                                           "models/stories260K/stories260K.bin"),
                         [](const auto& row) {
                           std::string name = fs::path(row.param).stem().string();
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(Export, WhatHasNoSuchFormSaysWhy) {
  const std::string bert = kShared + "conformance/llama.cpp/ggml-vocab-bert-bge.gguf";
  if (!fs::exists(bert)) GTEST_SKIP() << bert << " is absent";
  const TokenizerExport out = export_tokenizer(bert, "");
  EXPECT_TRUE(out.files.empty());
  EXPECT_THAT(out.missing, HasSubstr("a WordPiece vocabulary is not written here"));
}

TEST(Export, ADirectoryGivesItsOwnFiles) {
  const Directory from, to;
  from.put({{"tokenizer.json", read_file(kGoldens + "byte_level.json")},
            {"tokenizer_config.json", "{\"chat_template\": \"x\"}"},
            {"generation_config.json", "{\"eos_token_id\": [1, 2]}"},
            {"README.md", "not this"}});
  TokenizerExport out = export_tokenizer(from.path(), "");
  EXPECT_EQ(out.missing, "");
  EXPECT_THAT(to.put(out.files),
              ::testing::ElementsAre("tokenizer.json", "tokenizer_config.json", "generation_config.json"));
  EXPECT_EQ(load_tokenizer(to.path())->chat_template, "x");
  // A tokenizer from elsewhere, under another name; the model's word on generation stays.
  const Directory elsewhere;
  elsewhere.put({{"my_tokenizer.json", read_file(kGoldens + "wordlevel.json")}});
  out = export_tokenizer(from.path(), elsewhere.path() + "/my_tokenizer.json");
  ASSERT_EQ(out.files.size(), 2u);
  EXPECT_EQ(out.files[0].name, "tokenizer.json");
  EXPECT_EQ(out.files[0].bytes, read_file(kGoldens + "wordlevel.json"));
  EXPECT_EQ(out.files[1].bytes, "{\"eos_token_id\": [1, 2]}");
  const Directory empty;
  EXPECT_THAT(export_tokenizer(empty.path(), "").missing, HasSubstr("holds no tokenizer"));
  empty.put({{"model.safetensors", "x"}});
  EXPECT_EQ(export_tokenizer(empty.path() + "/model.safetensors", "").missing,
            "there is none beside the weights");
  EXPECT_THROW(export_tokenizer(from.path(), empty.path()), Error) << "it was asked for";
}

// <unk> <s> a b ab ▁ab
VocabSource scored() {
  VocabSource source;
  source.kind = VocabSource::Kind::kScored;
  source.scored.pieces = {"<unk>", "<s>", "a", "b", "ab", "▁ab", "▁"};
  source.tokens = source.scored.pieces;
  source.scored.scores = {0, 0, -5, -6, -2, -1, -7};
  using T = ScoredVocab;
  source.scored.types = {T::kUnknown, T::kControl, T::kNormal, T::kNormal,
                         T::kNormal,  T::kNormal,  T::kNormal};
  source.scored.rules.remove_extra_whitespaces = false;
  source.parts.bos = 1;
  source.parts.prefix = {1};
  return source;
}

TEST(Export, MergesComeInTheOrderOfScores) {
  std::string json;
  ASSERT_EQ(tokenizer_json(scored(), json), "");
  const Json document = parse_json(json, "json");
  EXPECT_EQ(document["model"]["merges"].dump(), R"([["▁","ab"],["a","b"]])");
  EXPECT_EQ(document["model"]["unk_token"], "<unk>");
  EXPECT_EQ(document["post_processor"]["single"][0]["SpecialToken"]["id"], "<s>");
}

TEST(Export, RefusesWhereIdsWouldDiffer) {
  const auto reason = [](const std::function<void(VocabSource&)>& change) {
    VocabSource source = scored();
    change(source);
    std::string json;
    return tokenizer_json(source, json);
  };
  EXPECT_EQ(reason([](VocabSource&) {}), "");
  EXPECT_THAT(reason([](VocabSource& s) { s.scored.scores[5] = -2; }),
              HasSubstr("two pieces have the same score -2"));
  EXPECT_THAT(reason([](VocabSource& s) { s.scored.types[4] = ScoredVocab::kUnused; }),
              HasSubstr("piece 4 is unused, yet merges lead to it"));
  EXPECT_THAT(reason([](VocabSource& s) { s.tokens[3] = "a"; }),
              HasSubstr("tokens 2 and 3 are spelled alike"));
  EXPECT_THAT(reason([](VocabSource& s) { s.tokens[3] = "\xff"; }), HasSubstr("token 3 is not valid UTF-8"));
  EXPECT_THAT(reason([](VocabSource& s) { s.scored.unigram = true; }), HasSubstr("unigram"));
  EXPECT_THAT(reason([](VocabSource& s) { s.scored.rules.remove_extra_whitespaces = true; }),
              HasSubstr("its normalization is not written here"));
  EXPECT_THAT(reason([](VocabSource& s) { s.scored.pieces[5] = std::string(100000, 'a'); }),
              HasSubstr("its pieces are too long"));
}

}  // namespace
}  // namespace nibble::text
